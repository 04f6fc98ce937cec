"""Loading a model from wherever it is."""

import shutil

import numpy as np
import pytest

from sparse_interp.ground_truth.compiled import programs, storage
from sparse_interp.loading import load


def test_a_program_is_loaded_by_its_name_and_by_its_file(tmp_path):
  model = load('hist')
  program = storage.load(programs.SHIPPED / 'hist.npz')
  copy = shutil.copy(programs.SHIPPED / 'hist.npz', tmp_path / 'mine.npz')
  assert model.config == program.config
  assert load(copy).hash == model.hash
  assert 'hist' in repr(model)
  assert 'mine.npz' in repr(load(copy))
  assert model.tokenizer is None
  means = model.means
  assert {mean.dtype.name for mean in means.values()} == {'float32'}
  assert any(np.asarray(mean).any() for mean in means.values())


@pytest.mark.parametrize('name', ['reverse', 'sort_unique', 'pair_balance'])
def test_the_text_of_a_program_is_inputs_it_is_defined_on(name):
  model = load(name)
  program = storage.load(programs.SHIPPED / f'{name}.npz')
  assert model.windows.max() < len(program.vocab)
  for row in model.windows[:5]:
    tokens = [program.vocab[i] for i in row]
    assert tokens[0] == 'compiler_bos'
    if program.unique_tokens:
      inside = [t for t in tokens[1:] if not str(t).startswith('compiler')]
      assert len(set(inside)) == len(inside) > 1


def test_where_nothing_is_it_says_what_there_could_be(tmp_path):
  with pytest.raises(ValueError, match='source must be the workdir') as error:
    load(tmp_path / 'nothing')
  assert 'hist' in str(error.value)
  with pytest.raises(ValueError, match='must hold a pretrained model'):
    load(tmp_path)
