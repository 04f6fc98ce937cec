"""Scripts that were written before the rooms within rooms go on."""

import importlib

import pytest

from sparse_interp import interop
from sparse_interp.ground_truth.compiled import tracr
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.interop.torch_file import torch_unpickler


@pytest.mark.parametrize(
  ('module', 'name'),
  [
    ('gpt2', 'load'),
    ('gpt_neox', 'save'),
    ('openai_release', 'load'),
    ('released_circuit', 'read'),
    ('bpe_files', 'read'),
    ('hf_tokenizer', 'load'),
    ('torch_file', 'read'),
    ('mib', 'of_circuit'),
    ('storage', 'load'),
    ('planted', 'plant'),
    ('tracr', 'compile_program'),
  ],
)
def test_a_module_is_found_where_it_was(module, name):
  found = importlib.import_module(f'sparse_interp.interop.{module}')
  assert callable(getattr(found, name))


def test_it_is_the_same_module_with_the_same_classes():
  there = importlib.import_module('sparse_interp.interop.torch_unpickler')
  assert there is torch_unpickler
  assert importlib.import_module('sparse_interp.interop.tracr') is tracr


def test_what_never_was_there_is_not():
  with pytest.raises(ModuleNotFoundError, match='nothing'):
    importlib.import_module('sparse_interp.interop.nothing')


def test_a_name_is_found_where_it_was():
  assert interop.CompiledProgram is CompiledProgram
  with pytest.raises(AttributeError, match='has no attribute'):
    _ = interop.nothing
