"""GPT-2 and GPT-NeoX of other people compute here what they compute there."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sparse_interp.interop.hugging_face import gpt2, gpt_neox
from sparse_interp.models import GPT
from tests.interop.hugging_face import hf_reference
from tests.interop.hugging_face.hf_files import (
  MODULES,
  ONE_FILE,
  edit_config,
  edit_tensors,
  module_of,
  shard,
  write_index,
)
from tests.interop.hugging_face.hf_reference import CASES, DIRECTORY, our_logits


def _shapes(config):
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  return jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)['params']


@pytest.mark.parametrize('case', CASES)
def test_recorded_logits_are_matched(case):
  config, params = module_of(case).load(DIRECTORY / case)
  recorded = np.load(DIRECTORY / case / 'io.npz')
  found = our_logits(config, params, recorded['tokens'])
  np.testing.assert_allclose(found, recorded['logits'], atol=2e-5)
  assert np.abs(recorded['logits']).max() > 3
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
    lambda x: (x.shape, x.dtype), _shapes(config)
  )


@pytest.mark.parametrize('hf_copy', CASES, indirect=True)
def test_saved_models_are_read_the_same_here_and_there(hf_copy):
  case, directory = hf_copy
  module = module_of(case)
  config, params = module.load(DIRECTORY / case)
  shutil.rmtree(directory)
  module.save(directory, config, params)
  names = sorted(path.name for path in directory.iterdir())
  assert names == ['config.json', ONE_FILE]
  modes = {(directory / name).stat().st_mode for name in names}
  assert len(modes) == 1
  again, same = module.load(directory)
  assert again == config
  jax.tree.map(np.testing.assert_array_equal, same, params)
  before = safetensors.numpy.load_file(DIRECTORY / case / ONE_FILE)
  after = safetensors.numpy.load_file(directory / ONE_FILE)
  jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize('hf_copy', CASES, indirect=True)
def test_transformers_reads_what_was_saved(hf_copy):
  transformers = pytest.importorskip('transformers')
  case, directory = hf_copy
  module = module_of(case)
  module.save(directory, *module.load(DIRECTORY / case))
  model = transformers.AutoModelForCausalLM.from_pretrained(directory)
  recorded = np.load(DIRECTORY / case / 'io.npz')
  found = hf_reference.logits(model.eval(), recorded['tokens'].astype(int))
  np.testing.assert_allclose(found, recorded['logits'], atol=2e-5)


@pytest.mark.parametrize('hf_copy', ['gpt2', 'gpt_neox'], indirect=True)
def test_names_without_prefix_and_buffers_change_nothing(hf_copy):
  case, directory = hf_copy

  def edit(arrays):
    prefix = {'gpt2': 'transformer.', 'gpt_neox': 'gpt_neox.'}[case]
    for name in list(arrays):
      arrays[name.removeprefix(prefix)] = arrays.pop(name)
    if case == 'gpt2':
      arrays['h.0.attn.bias'] = np.ones((1, 1, 4, 4), bool)
      arrays['h.1.attn.masked_bias'] = np.array(-np.inf, np.float32)
      arrays['lm_head.weight'] = arrays['wte.weight'].copy()
    else:
      arrays['layers.0.attention.bias'] = np.ones((1, 1, 4, 4), bool)
      arrays['layers.1.attention.masked_bias'] = np.array(-1e9, np.float32)
      arrays['layers.1.attention.rotary_emb.inv_freq'] = np.zeros(3)

  edit_tensors(directory, edit)
  config, params = module_of(case).load(directory)
  expected, same = module_of(case).load(DIRECTORY / case)
  assert config == expected
  jax.tree.map(np.testing.assert_array_equal, params, same)


@pytest.mark.parametrize('dtype', [np.float16, jnp.bfloat16])
def test_narrow_dtypes_are_widened_exactly(hf_copy, dtype):
  _, directory = hf_copy
  _, exact = gpt2.load(directory)

  def narrow(arrays):
    arrays.update({k: v.astype(dtype) for k, v in arrays.items()})

  edit_tensors(directory, narrow)
  _, params = gpt2.load(directory)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.astype(dtype)),
    params,
    exact,
  )
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}


def test_shards_are_read_as_one(hf_copy):
  case, directory = hf_copy
  write_index(directory, shard(directory))
  _, params = gpt2.load(directory)
  _, same = gpt2.load(DIRECTORY / case)
  jax.tree.map(np.testing.assert_array_equal, params, same)


def test_old_fields_of_rotary_positions_mean_the_same(hf_copy):
  _, directory = hf_copy
  source = DIRECTORY / 'gpt_neox_variant'
  expected, _ = gpt_neox.load(source)
  for path in source.iterdir():
    shutil.copy(path, directory)
  edit_config(
    directory, rope_parameters=None, rotary_pct=1, rotary_emb_base=100
  )
  assert gpt_neox.load_config(directory) == expected
  edit_config(directory, rotary_pct=None, rotary_emb_base=None)
  config = gpt_neox.load_config(directory)
  assert (config.rotary_fraction, config.rotary_base) == (0.25, 10000)


_SIZES = {
  'gpt2': (12, 768, 12, 124_439_808),
  'gpt2-medium': (24, 1024, 16, 354_823_168),
  'gpt2-large': (36, 1280, 20, 774_030_080),
  'gpt2-xl': (48, 1600, 25, 1_557_611_200),
}

_PYTHIA = {
  'pythia-70m': (6, 512, 8, 2048, 50304, 70_426_624),
  'pythia-410m': (24, 1024, 16, 4096, 50304, 405_334_016),
  'pythia-6.9b': (32, 4096, 32, 16384, 50432, 6_857_302_016),
}


def _gpt2_fields(layers, width, heads):
  return {'n_layer': layers, 'n_embd': width, 'n_head': heads}


def _neox_fields(layers, width, heads, neurons, vocab):
  return {
    'num_hidden_layers': layers,
    'hidden_size': width,
    'num_attention_heads': heads,
    'intermediate_size': neurons,
    'vocab_size': vocab,
  }


@pytest.mark.slow
@pytest.mark.parametrize('name', [*_SIZES, *_PYTHIA])
def test_published_sizes_have_their_numbers_of_parameters(tmp_path, name):
  *size, count = (_SIZES | _PYTHIA)[name]
  if name in _SIZES:
    module, fields = gpt2, {'vocab_size': 50257, **_gpt2_fields(*size)}
  else:
    module, fields = gpt_neox, _neox_fields(*size)
  fields['model_type'] = module.__name__.split('.')[-1]
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  config = module.load_config(tmp_path)
  shapes = _shapes(config)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count
  ours = {
    tuple(key.key for key in path): x.shape
    for path, x in jax.tree.leaves_with_path(shapes)
  }
  sizes = {w.path: math.prod(w.shape) for w in module.weights(config)}
  assert sizes == {path: math.prod(shape) for path, shape in ours.items()}


def _compare_with_transformers(directory, kind, fields, tokens, scale=0.3):
  model = hf_reference.make(kind, scale, **fields)
  model.save_pretrained(directory)
  expected = hf_reference.logits(model, tokens)
  del model
  found = our_logits(*MODULES[kind].load(directory), tokens)
  difference = np.abs(found - expected).max()
  print(f'\n{kind} {fields}: max |logit difference| {difference:.2g}', end=' ')
  print(f'with logits up to {np.abs(expected).max():.3g}')
  assert difference <= 1e-4
  assert np.abs(expected).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize('name', ['gpt2', 'pythia-70m'])
def test_real_configurations_give_the_logits_of_transformers(tmp_path, name):
  *size, _ = (_SIZES | _PYTHIA)[name]
  if name == 'gpt2':
    kind, fields = 'GPT2', _gpt2_fields(*size)
  else:
    kind, fields = 'GPTNeoX', _neox_fields(*size)
  tokens = hf_reference.draw_tokens(50000, 1, 256)
  # As released models are initialised, but for biases and gains.
  scale = 0.02 * (size[1] / 24) ** 0.5
  _compare_with_transformers(tmp_path, kind, fields, tokens, scale)


@pytest.mark.slow
@pytest.mark.parametrize('parallel', [True, False])
@pytest.mark.parametrize('share', [0.25, 0.5, 1.0])
def test_switches_of_gpt_neox_give_the_logits_of_transformers(
  tmp_path, parallel, share
):
  *size, _ = _PYTHIA['pythia-70m']
  size[0], size[1], size[3], size[4] = 2, 128, 512, 300
  fields = _neox_fields(*size) | {
    'use_parallel_residual': parallel,
    'rotary_pct': share,
  }
  tokens = hf_reference.draw_tokens(300, 2, 200)
  _compare_with_transformers(tmp_path, 'GPTNeoX', fields, tokens)
