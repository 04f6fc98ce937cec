"""Verdicts: judged by the end of an interval, shown, kept."""

import dataclasses
import json

import pytest

from sparse_interp.files.verdict import Verdict, from_json, number


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


def test_what_is_written_is_what_is_read():
  verdict = _verdict()
  document = json.loads(json.dumps(verdict.to_json()))
  assert document['found']
  assert document['numbers']['loss']['bound'] == 0.15
  assert from_json(document) == verdict
  with pytest.raises(ValueError, match='schema_version 1, got 2'):
    from_json({**document, 'schema_version': 2})
  assert dataclasses.replace(verdict, numbers={}) != verdict
