"""Verdicts: judged by the end of an interval, shown, kept."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from sparse_interp.files import artifact
from sparse_interp.files.verdict import (
  FORMAT,
  Verdict,
  from_json,
  load,
  number,
  save,
)


def _verdict(**intervals):
  intervals = {'loss': (0.1, 0.14), 'need': (0.6, 0.9)} | intervals
  numbers = {
    'kl <b>': number(0.3, (0.2, 0.4), 'a & b'),
    'loss': number(0.12, intervals['loss'], 'loss', at_most=0.15),
    'need': number(0.7, intervals['need'], 'need', at_least=0.5),
  }
  return Verdict('with_as', numbers, ('mean',), {}, {'seed': 3})


@pytest.mark.parametrize(
  ('intervals', 'missed'),
  [
    ({}, []),
    ({'loss': (0.1, 0.15), 'need': (0.5, 0.9)}, []),
    ({'loss': (0.1, 0.151)}, ['loss']),
    ({'need': (0.499, 0.9)}, ['need']),
    ({'loss': (0.1, 0.2), 'need': (0.4, 0.9)}, ['loss', 'need']),
  ],
)
def test_the_worse_end_decides(intervals, missed):
  verdict = _verdict(**intervals)
  assert list(verdict.missed) == missed
  assert verdict.found == (not missed)
  assert verdict.numbers['kl <b>'].passed is None


def test_a_verdict_on_nothing_finds_nothing():
  assert not Verdict('with_as', {}, (), {}, {}).found


def test_a_verdict_is_one_line_with_what_was_asked():
  line = repr(_verdict(loss=(0.1, 0.2)))
  assert '\n' not in line
  assert 'with_as: not found' in line
  assert 'loss 0.120 [0.100, 0.200] <= 0.15 MISSED' in line
  assert 'need 0.700 [0.600, 0.900] >= 0.5' in line
  assert 'kl' not in line


def test_a_verdict_is_a_table_with_every_number():
  shown = _verdict()._repr_html_()
  assert shown.count('<tr>') == 4
  assert 'kl &lt;b&gt;' in shown
  assert 'a &amp; b' in shown


def test_what_is_written_is_what_is_read(tmp_path):
  path = tmp_path / 'new' / FORMAT.json
  verdict = dataclasses.replace(
    _verdict(), nulls={'shuffled': number(np.float64(1), (0.0, 2.0), 'n', 0.5)}
  )
  save(verdict, path)
  assert load(path) == verdict
  assert load(path) != _verdict()
  document = json.loads(path.read_text())
  assert document['found']
  assert document['numbers']['loss']['bound'] == 0.15
  assert document['nulls']['shuffled']['passed'] is False
  before = path.read_bytes()
  save(load(path), path)
  assert path.read_bytes() == before
  assert list(path.parent.iterdir()) == [path]


def test_what_is_in_memory_is_read_too():
  verdict = _verdict()
  assert from_json(verdict.to_json()) == verdict
  with pytest.raises(ValueError, match='must have schema_version 1, got 2'):
    from_json({**verdict.to_json(), 'schema_version': 2})


@pytest.fixture
def path(tmp_path):
  save(_verdict(), tmp_path / FORMAT.json)
  return tmp_path / FORMAT.json


def refused(path, part):
  with pytest.raises(ValueError) as error:
    load(path)
  message = str(error.value)
  assert message.startswith(f'verdict file {path} must')
  assert message.endswith('; audit again, or restore it.')
  assert part in message
  assert '\n' not in message
  assert len(message) < len(str(path)) + 250


def test_every_flipped_bit_is_noticed_or_without_effect(path):
  content, verdict, noticed = bytearray(path.read_bytes()), _verdict(), 0
  rng = np.random.default_rng(0)
  bits = rng.choice(8 * len(content), 300, replace=False).tolist()
  for bit in bits:
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    content[bit // 8] ^= 1 << bit % 8
    try:
      assert load(path) == verdict
    except ValueError as error:
      assert str(path) in str(error)  # noqa: PT017
      assert '\n' not in str(error)  # noqa: PT017
      noticed += 1
  assert noticed > 250


def test_what_is_missing_cut_or_unsealed_is_refused(path):
  content = path.read_bytes()
  path.write_bytes(content[:-9])
  refused(path, 'must be whole JSON as written')
  path.write_text('{"schema_version": 1}')
  refused(path, 'no sha256')
  path.write_text('[' * 100_000)
  refused(path, 'must be whole JSON as written')
  path.unlink()
  refused(path, 'must exist, got no file')
  path.mkdir()
  refused(path, 'got a directory')


def test_another_version_is_refused_as_such(path):
  document = _verdict().to_json() | {'schema_version': 2}
  artifact.write_document(FORMAT, path, document)
  with pytest.raises(
    ValueError, match='schema_version must be 1, got 2; audit'
  ):
    load(path)


@pytest.mark.parametrize(
  ('place', 'value', 'part'),
  [
    ('more', 1, "its fields and no others, differs in 'more'"),
    ('task', None, 'task as text, got None'),
    ('found', 1, 'found as true or false, got 1'),
    ('found', False, 'found as its numbers say, got False'),
    ('holds_under', 'mean', "holds_under as a list, got 'mean'"),
    ('holds_under', [5], 'every entry of holds_under as text, got 5'),
    ('provenance', [], 'provenance as an object'),
    ('nulls', [], 'nulls as an object'),
    ('nulls.none', 3, 'nulls.none as an object, got 3'),
    (
      'nulls.none',
      {},
      "the fields of nulls.none and no others, differs in 'at",
    ),
    (
      'numbers.loss.more',
      1,
      "of numbers.loss and no others, differs in 'more'",
    ),
    ('numbers.loss.value', '0.1', "value as a finite number, got '0.1'"),
    ('numbers.loss.value', True, 'value as a finite number, got True'),
    ('numbers.loss.value', 10**400, 'value as a finite number, got 1000'),
    ('numbers.loss.low', 0.2, 'loss.low of at most its high 0.14, got 0.2'),
    ('numbers.loss.bound', '0.1', "bound as a finite number, got '0.1'"),
    ('numbers.loss.bound', 0.13, 'passed as its interval and bound say, False'),
    ('numbers.loss.bound', None, 'interval and bound say, None, got True'),
    ('numbers.loss.at_most', False, 'interval and bound say, False, got True'),
    ('numbers.loss.at_most', 1, 'at_most as true or false, got 1'),
    ('numbers.loss.formula', 7, 'formula as text, got 7'),
    ('numbers.loss.passed', 1, 'got 1'),
  ],
)
def test_lies_are_refused(path, place, value, part):
  """A file that is whole, and says what cannot be."""
  document = copy.deepcopy(_verdict().to_json())
  inner, (*outer, last) = document, place.split('.')
  for name in outer:
    inner = inner[name]
  inner[last] = value
  artifact.write_document(FORMAT, path, document)
  refused(path, part)


def test_what_is_not_finite_is_not_written(tmp_path):
  wrong = _verdict(loss=(float('nan'), 0.1))
  with pytest.raises(
    ValueError, match=r'loss\.low as a finite number, got nan'
  ):
    save(wrong, tmp_path / FORMAT.json)
  assert not list(tmp_path.iterdir())
