"""Names that wrappers left behind are read as bare ones by every reader."""

import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from sparse_interp.interop.hugging_face import gpt2, gpt_neox, tensor_names
from sparse_interp.interop.openai import openai_release
from sparse_interp.interop.torch_file import torch_file
from tests.interop.hugging_face.hf_files import ONE_FILE
from tests.interop.hugging_face.hf_reference import DIRECTORY

_RELEASED = DIRECTORY.parent / 'released_format' / 'plain'
_READERS = {
  'gpt2': (gpt2, DIRECTORY / 'gpt2', 'transformer.'),
  'gpt_neox': (gpt_neox, DIRECTORY / 'gpt_neox', 'gpt_neox.'),
  'released': (openai_release, _RELEASED, 'transformer.'),
  'released .pt': (openai_release, _RELEASED, 'transformer.'),
}


def _state(directory):
  if (directory / ONE_FILE).exists():
    return safetensors.numpy.load_file(directory / ONE_FILE)
  return torch_file.read(directory / 'final_model.pt')


@pytest.fixture(params=_READERS)
def stored(request, tmp_path):
  """(reader, directory, write): a model whose names a test may choose."""
  module, source, body = _READERS[request.param]
  state = {n: np.array(a) for n, a in _state(source).items()}
  directory = tmp_path / 'model'
  shutil.copytree(source, directory)

  def write(rename, more=()):
    renamed = {rename(n): a for n, a in state.items()} | dict(more)
    assert len(renamed) == len(state) + len(more)
    (directory / 'final_model.pt').unlink(missing_ok=True)
    if request.param.endswith('.pt'):
      torch_file.write(directory / 'final_model.pt', renamed)
    else:
      safetensors.numpy.save_file(renamed, directory / ONE_FILE)

  return module, source, directory, body, write, next(iter(state))


def _wrap(name):
  return lambda n: name + n


def _inner(name):
  """Between the number of a block and what is in it."""
  return lambda n: re.sub(r'^((\w+\.)?(h|layers)\.\d+\.)', rf'\1{name}', n)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('rename', 'said'),
  [
    (_wrap('module.'), 'module.'),
    (_wrap('_orig_mod.'), '_orig_mod.'),
    (_wrap('_orig_mod.module.'), '_orig_mod.module.'),
    (_wrap('module._orig_mod.'), 'module._orig_mod.'),
    (_wrap('model.'), 'model.'),
    (_wrap('_fsdp_wrapped_module.'), '_fsdp_wrapped_module.'),
    (_inner('_orig_mod.'), ''),
    (_inner('_checkpoint_wrapped_module._fsdp_wrapped_module.'), ''),
    ('body', ''),
    ('no body', ''),
    ('module, no body', 'module.'),
    ('module after body', ''),
  ],
)
def test_every_reader_reads_wrapped_names(stored, rename, said, caplog):
  module, source, directory, body, write, _ = stored
  rename = {
    'body': lambda n: body + n,
    'no body': lambda n: n.removeprefix(body),
    'module, no body': lambda n: 'module.' + n.removeprefix(body),
    'module after body': lambda n: n.replace(body, f'{body}module.'),
  }.get(rename, rename)
  write(rename)
  config, params = module.load(directory)
  expected, same = module.load(source)
  assert config == expected
  jax.tree.map(np.testing.assert_array_equal, params, same)
  assert f'begin with {said}' in caplog.text or not said


def test_a_tensor_with_and_without_a_prefix_is_refused(stored):
  module, _, directory, body, write, name = stored
  for more in (f'module.{name}', f'_orig_mod.module.{name}', body + name):
    write(lambda n: n, {more: np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match='under two names') as info:
      module.load(directory)
    assert name in str(info.value)
    assert more in str(info.value)
    assert '\n' not in str(info.value)


def test_names_with_different_prefixes_are_refused(stored):
  module, _, directory, body, write, name = stored
  for change, part in (
    (lambda n: f'module.{n}' if n == name else n, "'module.'"),
    (lambda n: ('' if n == name else '_orig_mod.') + n, "'_orig_mod.'"),
    (lambda n: n.removeprefix(body) if '.1.' in n else n, f"'{body}'"),
  ):
    write(change)
    with pytest.raises(ValueError, match='before all names or') as info:
      module.load(directory)
    assert part in str(info.value)
    assert '\n' not in str(info.value)


def test_names_of_wrappers_alone_are_names():
  found = tensor_names.bare('x', ['module.', 'module.a'], 't.', ())
  assert found == {'': 'module.', 'a': 'module.a'}
  assert tensor_names.bare('x', [], 't.', ()) == {}
