"""model.json vouches for the tokenizer and the sample of text."""

import json

import pytest

from sparse_interp.files import model_files

FIELDS = {'d_model': 8, 'activation_density': 0.25}


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / model_files.TOKENIZER).write_text('{"merges": ["a b", "c d"]}')
  (tmp_path / model_files.SAMPLE).write_bytes(b'windows')
  model_files.write(tmp_path, FIELDS)
  return tmp_path


def test_fields_come_back(workdir):
  assert model_files.read(workdir) == FIELDS
  assert model_files.is_whole(workdir)
  for name in (model_files.TOKENIZER, model_files.SAMPLE):
    assert model_files.checked(workdir, name) == workdir / name
    assert model_files.vouches(workdir, name)


@pytest.mark.parametrize('name', [model_files.TOKENIZER, model_files.SAMPLE])
def test_a_file_that_changed_is_refused(workdir, name):
  content = bytearray((workdir / name).read_bytes())
  for bit in range(8 * len(content)):
    content[bit // 8] ^= 1 << bit % 8
    (workdir / name).write_bytes(content)
    with pytest.raises(ValueError, match='must be the one that the model was'):
      model_files.checked(workdir, name)
    content[bit // 8] ^= 1 << bit % 8
  with pytest.raises(ValueError) as error:
    model_files.is_whole(workdir)
  assert str(workdir / name) in str(error.value)
  assert 'delete it and run again what made the model' in str(error.value)
  (workdir / name).unlink()
  assert not model_files.is_whole(workdir)
  assert not model_files.vouches(workdir, name)
  with pytest.raises(ValueError, match=r'run again what made the model\.'):
    model_files.checked(workdir, name)


def test_swapped_merges_are_refused(workdir):
  (workdir / model_files.TOKENIZER).write_text('{"merges": ["c d", "a b"]}')
  with pytest.raises(ValueError, match='SHA-256'):
    model_files.checked(workdir, model_files.TOKENIZER)


def test_an_edited_density_is_refused(workdir):
  path = workdir / model_files.MODEL
  path.write_text(path.read_text().replace('0.25', '0.75'))
  with pytest.raises(ValueError, match=r'model\.json must be as it was wri'):
    model_files.read(workdir)


def test_a_model_of_an_earlier_version_is_refused_as_such(workdir):
  (workdir / model_files.MODEL).write_text(json.dumps(FIELDS))
  with pytest.raises(ValueError, match='an earlier version wrote none'):
    model_files.read(workdir)


def test_a_model_without_text_says_so(tmp_path):
  with pytest.raises(ValueError, match=r'got no .*model\.json; run a pretrain'):
    model_files.read(tmp_path)
  model_files.write(tmp_path, FIELDS)
  assert model_files.is_whole(tmp_path)
  with pytest.raises(ValueError, match='with a tokenizer'):
    model_files.checked(tmp_path, model_files.TOKENIZER)
