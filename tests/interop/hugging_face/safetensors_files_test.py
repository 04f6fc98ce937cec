"""Which files an index names, and what it may not name."""

import shutil

import numpy as np
import pytest
import safetensors.numpy

from sparse_interp.interop import source
from sparse_interp.interop.hugging_face import gpt2
from sparse_interp.interop.openai import openai_release
from sparse_interp.interop.torch_file import torch_file
from tests.interop.hugging_face.hf_files import ONE_FILE, shard, write_index
from tests.interop.hugging_face.hf_reference import DIRECTORY

_INDEX = 'model.safetensors.index.json'
_RELEASED = DIRECTORY.parent / 'released_format' / 'plain'


@pytest.fixture(params=['gpt2', 'released'])
def sharded(request, tmp_path):
  """(reader, directory, {tensor: its file}) of a model in two files."""
  directory = tmp_path / 'model'
  if request.param == 'gpt2':
    shutil.copytree(DIRECTORY / 'gpt2', directory)
    module = gpt2
  else:
    shutil.copytree(_RELEASED, directory)
    state = torch_file.read(directory / 'final_model.pt')
    state = {name: np.array(array) for name, array in state.items()}
    safetensors.numpy.save_file(state, directory / ONE_FILE)
    (directory / 'final_model.pt').unlink()
    module = openai_release
  where = shard(directory)
  write_index(directory, where)
  return module, directory, where


def _refused(module, directory, *parts):
  """By the reader and by what `import_model` looks at first."""
  for read in (module.load, source.sha256):
    with pytest.raises(ValueError, match=r'model\.safetensors\.index') as info:
      read(directory)
    for part in parts:
      assert part in str(info.value)
    assert '\n' not in str(info.value)


def test_shards_are_read_as_the_whole(sharded):
  module, directory, _ = sharded
  origin = DIRECTORY / 'gpt2' if module is gpt2 else _RELEASED
  config, params = module.load(directory)
  expected, same = module.load(origin)
  assert config == expected
  np.testing.assert_array_equal(
    params['h_1']['mlp']['c_fc']['kernel'], same['h_1']['mlp']['c_fc']['kernel']
  )
  assert len(source.sha256(directory)) == 64


def test_a_stale_index_and_the_missing_file_are_named(sharded):
  module, directory, where = sharded
  stale = {n: f.replace('00002', '00003') for n, f in where.items()}
  write_index(directory, stale)
  _refused(module, directory, min(stale.values()), 'which is missing')
  # One of several.
  write_index(directory, where)
  (directory / max(where.values())).unlink()
  _refused(module, directory, max(where.values()), 'which is missing')
  (directory / max(where.values())).mkdir()
  _refused(module, directory, max(where.values()), 'which is missing')


@pytest.mark.parametrize(
  'name',
  [
    *(
      '../x.safetensors',
      '/etc/x.safetensors',
      'a/b.safetensors',
      '.safetensors',
    ),
    *('..', '', 'x.bin', None, 3, ['x'], 'a\n.safetensors', 'a\0.safetensors'),
  ],
)
def test_an_index_names_files_of_its_own_directory(sharded, name):
  module, directory, where = sharded
  write_index(directory, where | {min(where): name})
  _refused(module, directory, 'of its own directory')


def test_a_tensor_elsewhere_or_nowhere_is_named(sharded):
  module, directory, where = sharded
  first, second = sorted(set(where.values()))
  name = min(n for n, file in where.items() if file == first)
  for wrong, parts in (
    (where | {name: second}, (name, f'in {second}, found in {first}')),
    (where | {'more': first}, ("'more'", 'found in None')),
    ({n: f for n, f in where.items() if n != name}, (name, 'in None')),
  ):
    write_index(directory, wrong)
    with pytest.raises(ValueError, match='where each tensor is') as info:
      module.load(directory)
    for part in (_INDEX, *parts):
      assert part in str(info.value)


def test_files_that_are_not_used_are_said(sharded, caplog):
  module, directory, where = sharded
  old = 'model-00003-of-00003.safetensors'
  shutil.copy(directory / min(where.values()), directory / old)
  module.load(directory)
  assert f'no part of the model: {old}.' in caplog.text
  caplog.clear()
  # A whole file goes before an index, as it does for transformers.
  state = {}
  for file in set(where.values()):
    state |= safetensors.numpy.load_file(directory / file)
  safetensors.numpy.save_file(state, directory / ONE_FILE)
  write_index(directory, dict.fromkeys(where, 'gone.safetensors'))
  module.load(directory)
  assert f'no part of the model: {_INDEX}, ' in caplog.text
  assert len(source.sha256(directory)) == 64
  assert source.shards(directory) == []
