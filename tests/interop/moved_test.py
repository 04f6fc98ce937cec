"""Scripts that were written before the rooms within rooms go on."""

import importlib

import pytest

from sparse_interp import interop
from sparse_interp.ground_truth.compiled.program import CompiledProgram


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


def test_a_name_is_found_where_it_was():
  assert interop.CompiledProgram is CompiledProgram
  with pytest.raises(AttributeError, match='has no attribute'):
    _ = interop.nothing
