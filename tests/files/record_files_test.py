"""Records come back as they were written, or one line says what is wrong."""

import dataclasses
import json

import numpy as np
import pytest

from sparse_interp.files import artifact, record_files
from sparse_interp.files.record_files import Records
from tests.files.small_records import make_records

FILES = ('records.json', 'records.npz')


@pytest.fixture
def directory(tmp_path):
  record_files.write(make_records(), tmp_path / 'records')
  return tmp_path / 'records'


def changed(directory, **fields):
  """Writes other records there, with hashes that fit, but unchecked."""
  record_files.write(make_records(), directory)
  document, arrays = artifact.read(record_files.FORMAT, directory)
  for name, value in fields.items():
    (arrays if name in record_files.ARRAYS else document)[name] = value
  artifact.write(record_files.FORMAT, directory, document, arrays)
  return directory


def refused(directory, part):
  with pytest.raises(ValueError) as error:
    record_files.read(directory)
  message = str(error.value)
  assert message.startswith(f'records file {directory}')
  assert message.endswith('; record again, or restore it.')
  assert part in message
  assert '\n' not in message


def test_records_come_back(directory):
  records, found = make_records(), record_files.read(directory)
  for field in dataclasses.fields(Records):
    written, read = (getattr(one, field.name) for one in (records, found))
    assert type(written) is type(read)
    np.testing.assert_array_equal(written, read)
    if isinstance(written, np.ndarray):
      assert written.dtype == read.dtype
  assert found.tokens_seen == 12
  assert repr(found) == (
    'Records(2 units on 12 tokens: 5 excerpts of 2; model 0123456789abcdef, '
    'text abababababababab, seed 0)'
  )


def test_the_same_records_have_the_same_bytes(directory, tmp_path):
  record_files.write(record_files.read(directory), tmp_path / 'again')
  for name in FILES:
    assert (directory / name).read_bytes() == (
      tmp_path / 'again' / name
    ).read_bytes()


def test_rows_are_those_of_a_unit_and_a_kind():
  records = make_records()
  assert records.rows('0.mlp.post_act:5').tolist() == [0, 1, 2, 3]
  assert records.rows('0.mlp.post_act:5', 'quantile').tolist() == [1, 2]
  assert records.rows('final_resid:0', 'top').tolist() == []
  with pytest.raises(ValueError, match='one of the 2 recorded, such as 0'):
    records.rows('final_resid:1')
  with pytest.raises(ValueError, match='kind must be one of top, quantile,'):
    records.rows('final_resid:0', 'best')


@pytest.mark.parametrize('name', FILES)
def test_every_flipped_bit_is_noticed_or_without_effect(directory, name):
  path, records = directory / name, record_files.read(directory)
  content = bytearray(path.read_bytes())
  noticed, rng = 0, np.random.default_rng(0)
  bits = rng.choice(8 * len(content), 300, replace=False).tolist()
  for bit in bits:
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    content[bit // 8] ^= 1 << bit % 8
    try:
      found = record_files.read(directory)
    except ValueError as error:
      assert str(path) in str(error)  # noqa: PT017
      assert '\n' not in str(error)  # noqa: PT017
      noticed += 1
      continue
    for field in dataclasses.fields(Records):
      np.testing.assert_array_equal(
        getattr(found, field.name), getattr(records, field.name)
      )
  # In the archive every bit counts; in the text, space of one kind is another.
  assert noticed == len(bits) or (name == FILES[0] and noticed > 250)


def test_files_that_are_missing_cut_or_of_others_are_refused(
  directory, tmp_path
):
  other = changed(tmp_path / 'other', seed=1, mean=np.array([0.5, 0.0]))
  content = (directory / FILES[1]).read_bytes()
  (directory / FILES[1]).write_bytes((other / FILES[1]).read_bytes())
  refused(directory, 'a damaged file or that of another records')
  (directory / FILES[1]).write_bytes(content[:-9])
  refused(directory, 'a damaged file')
  (directory / FILES[1]).unlink()
  refused(directory, 'records.npz must exist, got no file')
  (directory / FILES[0]).write_text('{"schema_version": 1}')
  refused(directory, 'must be whole JSON as written, got no sha256')
  (directory / FILES[0]).unlink()
  refused(directory, 'records.json must exist, got no file')


def test_another_version_is_refused_as_such(directory):
  document, arrays = artifact.read(record_files.FORMAT, directory)
  document['schema_version'] = 2
  artifact.write(record_files.FORMAT, directory, document, arrays)
  with pytest.raises(ValueError, match='schema_version must be 1, got 2; reco'):
    record_files.read(directory)


def test_hashes_may_not_be_left_out(directory):
  document = json.loads((directory / FILES[0]).read_text())
  del document['sha256']
  (directory / FILES[0]).write_text(json.dumps(document))
  refused(directory, 'no sha256')


def _set(array, *index, to):
  array = getattr(make_records(), array).copy()
  array[index] = to
  return array


@pytest.mark.parametrize(
  ('lie', 'part'),
  [
    ({'seed': -1}, 'seed as an integer from 0 on, got -1'),
    ({'seed': True}, 'seed as an integer from 0 on, got True'),
    ({'windows': 2.0}, 'windows as an integer from 1 on, got 2.0'),
    ({'top': 0}, 'at most [0, 1, 1] excerpts of a kind'),
    ({'per_quantile': 0}, 'at most [1, 0, 1] excerpts of a kind'),
    ({'random': 0}, 'at most [1, 1, 0] excerpts of a kind'),
    ({'quantiles': 3}, 'edges as float32 (2, 4), got float32 (2, 3)'),
    ({'length': 3}, 'tokens as int32 (5, 3), got int32 (5, 2)'),
    ({'length': 5}, 'length of at most window_length 4, got 5'),
    ({'window_length': 3}, 'start from 0 to 1, got 0 to 2'),
    ({'windows': 2}, 'window from 0 to 1, got 0 to 2'),
    ({'units': ('a:0',)}, 'mean as float64 (1,), got float64 (2,)'),
    ({'units': ('a:0', 'a:0')}, 'units that differ'),
    ({'units': ('a:0', 5)}, 'units and hashes as texts'),
    ({'units': ()}, 'must list units, got []'),
    ({'model_hash': None}, 'units and hashes as texts'),
    ({'tokenizer_hash': 3}, 'units and hashes as texts'),
    ({'model': []}, 'model as an object'),
    ({'model': {}}, 'vocab_size, got none'),
    ({'model': {'vocab_size': 8}}, 'tokens from 0 to 7, got 1 to 8'),
    ({'pieces': [[1, 'a'], [2, 'b']]}, 'the tokens that pieces name'),
    (
      {'pieces': [[1, 'a'], [2, 3], [8, '']]},
      'pieces as pairs of token and text',
    ),
    ({'pieces': [[2, 'a'], [1, 'b']]}, 'pieces by token, ascending'),
    ({'pieces': [[1, 'a'], 2]}, 'pieces as pairs'),
    ({'mean': _set('mean', 0, to=np.inf)}, 'finite numbers in mean'),
    ({'mean': np.zeros(2, np.float32)}, 'mean as float64 (2,), got float32'),
    ({'active': _set('active', 0, to=1.5)}, 'shares from 0 to 1'),
    ({'highest': _set('highest', 0, to=3)}, 'that fit the edges'),
    ({'lowest': _set('lowest', 1, to=-3)}, 'that fit the edges'),
    ({'edges': _set('edges', 0, 1, to=-2)}, 'edges that ascend'),
    ({'unit': _set('unit', 4, to=2)}, 'unit from 0 to 1, got 0 to 2'),
    ({'unit': _set('unit', 0, to=1)}, 'unit, kind and quantile, in order'),
    ({'kind': _set('kind', 4, to=3)}, 'kind from 0 to 2, got 0 to 3'),
    ({'kind': _set('kind', 3, to=0)}, 'unit, kind and quantile, in order'),
    ({'quantile': _set('quantile', 2, to=2)}, 'quantile from -1 to 1'),
    ({'quantile': _set('quantile', 3, to=1)}, 'by quantile only'),
    ({'position': _set('position', 0, to=2)}, 'position from 0 to 1'),
    ({'tokens': _set('tokens', 0, 0, to=3)}, 'the tokens that pieces name'),
    ({'values': _set('values', 0, 0, to=np.nan)}, 'finite numbers in values'),
  ],
)
def test_lies_are_refused(tmp_path, lie, part):
  """Files that are whole, and say what cannot be."""
  refused(changed(tmp_path, **lie), part)


def test_fields_and_arrays_are_those_and_no_others(directory):
  for document, arrays, part in (
    ({'more': 1}, {}, "its fields and no others, differs in 'more'"),
    ({}, {'more': np.zeros(1)}, "its arrays and no others, differs in 'more'"),
  ):
    path = directory / part[:10]
    whole = artifact.read(record_files.FORMAT, directory)
    artifact.write(
      record_files.FORMAT, path, whole[0] | document, whole[1] | arrays
    )
    refused(path, part)


def test_records_may_be_empty(tmp_path):
  empty = {
    name: getattr(make_records(), name)[:0]
    for name, (_, shape) in record_files.ARRAYS.items()
    if shape[0] == 'excerpts'
  }
  changed(tmp_path, **empty, top=0, per_quantile=0, random=0, pieces=[])
  assert not len(record_files.read(tmp_path).unit)
