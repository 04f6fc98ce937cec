"""Tied embeddings under either name, or under both."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from sparse_interp.interop.openai import openai_release
from sparse_interp.interop.torch_file import torch_file
from tests.interop.hugging_face.hf_files import ONE_FILE, edit_config, module_of
from tests.interop.hugging_face.hf_reference import DIRECTORY
from tests.interop.openai import released_models

_NAMES = {
  'gpt2': ('transformer.wte.weight', 'lm_head.weight'),
  'gpt_neox': ('gpt_neox.embed_in.weight', 'embed_out.weight'),
}


def _write(directory, state, metadata=None):
  safetensors.numpy.save_file(state, directory / ONE_FILE, metadata)


@pytest.fixture(params=_NAMES)
def tied(request, tmp_path):
  """(reader, directory, tensors without the embedding, it, its two names)."""
  case = request.param
  directory = tmp_path / 'tied'
  config, params = module_of(case).load(DIRECTORY / case)
  if not config.tied_unembed:
    params = {k: v for k, v in params.items() if k != 'lm_head'}
    config = type(config)(**{**vars(config), 'tied_unembed': True})
  module_of(case).save(directory, config, params)
  state = safetensors.numpy.load_file(directory / ONE_FILE)
  embed = state.pop(_NAMES[case][0])
  return module_of(case), directory, state, embed, _NAMES[case]


@pytest.mark.parametrize('which', ['first', 'second', 'both'])
@pytest.mark.parametrize('alias', [False, True])
@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_one_name_is_enough_where_they_are_tied(tied, which, alias, wrapper):
  module, directory, state, embed, names = tied
  here = {'first': names[:1], 'second': names[1:], 'both': names}[which]
  stored = {
    wrapper + n: a for n, a in (state | dict.fromkeys(here, embed)).items()
  }
  other = {wrapper + n: wrapper + here[0] for n in names if n not in here}
  metadata = {'format': 'pt', **other} if alias else None
  _write(directory, stored, metadata)
  config, params = module.load(directory)
  assert config.tied_unembed
  np.testing.assert_array_equal(params['wte']['embedding'], embed)
  assert 'lm_head' not in params


def test_tied_names_of_other_numbers_or_shapes_are_refused(tied):
  module, directory, state, embed, (first, second) = tied
  _write(directory, {**state, first: embed, second: embed + 1})
  with pytest.raises(ValueError, match=r'equal to .*got other numbers') as info:
    module.load(directory)
  assert 'tie_word_embeddings' in str(info.value)
  assert second in str(info.value)
  for shapes in ((first, second), (second, first)):
    wrong = {shapes[0]: embed, shapes[1]: embed[1:]}
    _write(directory, state | wrong)
    with pytest.raises(ValueError, match=r'of shape \(\d+, \d+\)'):
      module.load(directory)
  _write(directory, {**state, second: embed[1:]})
  with pytest.raises(ValueError, match='of shape'):
    module.load(directory)
  _write(directory, state)
  with pytest.raises(ValueError, match=r'hold \w+\.weight \(or \w+\.weight\)'):
    module.load(directory)


def test_untied_models_need_both_names_or_a_word_that_they_are_one(tied):
  module, directory, state, embed, (first, second) = tied
  edit_config(directory, tie_word_embeddings=False)
  for name, other in ((first, second), (second, first)):
    _write(directory, {**state, name: embed})
    with pytest.raises(ValueError, match='does not tie') as info:
      module.load(directory)
    assert other.split('.', other.count('.') - 1)[-1] in str(info.value)
    _write(directory, {**state, name: embed}, {other: name})
    config, params = module.load(directory)
    assert not config.tied_unembed
    np.testing.assert_array_equal(params['wte']['embedding'], embed)
    np.testing.assert_array_equal(params['lm_head']['kernel'], embed.T)
  _write(directory, {**state, first: embed, second: embed + 1})
  _, params = module.load(directory)
  np.testing.assert_array_equal(params['lm_head']['kernel'], (embed + 1).T)


def test_what_metadata_says_of_other_names_changes_nothing(tied):
  module, directory, state, embed, (first, second) = tied
  stated = {second: 'nowhere', 'format': 'pt', first: 'x'}
  _write(directory, {**state, first: embed}, stated)
  _, params = module.load(directory)
  np.testing.assert_array_equal(params['wte']['embedding'], embed)


@pytest.mark.parametrize('torch', [True, False])
def test_released_models_are_read_under_either_name(tmp_path, torch):
  fields = {'tied_unembed': True}
  state = released_models.random_state(fields)
  first, second = 'transformer.wte.weight', 'lm_head.weight'
  embed = state[first]
  rest = {n: a for n, a in state.items() if n not in (first, second)}
  loaded = []
  for names in ((first,), (second,), (first, second)):
    stored = rest | dict.fromkeys(names, embed)
    directory = tmp_path / '-'.join(names)
    released_models.write(directory, fields, stored)
    if not torch:
      (directory / 'final_model.pt').unlink()
      _write(directory, stored)
    loaded.append(openai_release.load(directory)[1])
    np.testing.assert_array_equal(loaded[-1]['wte']['embedding'], embed)
  for other in loaded[1:]:
    jax.tree.map(np.testing.assert_array_equal, loaded[0], other)
  stored[second] = embed + 1
  torch_file.write(directory / 'final_model.pt', stored)
  with pytest.raises(ValueError, match=r'lm_head\.weight equal .*being tied'):
    openai_release.load(directory)
