import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sparse_interp.interop.openai import openai_release
from sparse_interp.interop.torch_file import torch_file
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.gpt import sinusoidal_positions
from tests.interop.openai import release_reference, released_models

RECORDED = pathlib.Path(__file__).parents[2] / 'data' / 'released_format'
CASES = ('plain', 'sink', 'cat_pos_emb_relu', 'stray_config_fields')
SITES = [*released_models.ALL_SITES.split(','), 'resid_post_attn']
VARIANTS = {
  'layer norm': {'rms_norm': False},
  'layer norm without biases': {'rms_norm': False, 'ln_bias': False},
  'no bias': {'bias': False},
  'tied': {'tied_unembed': True},
  'sink': {'sink': True},
  'slow attention': {'flash': False},
  'no bigrams': {'enable_bigram_table': False},
  'frozen bigrams': {'learnable_bigram_table': False},
  'concatenated': {'d_pos_emb': 6},
  'concatenated, layer norm': {'d_pos_emb': 6, 'rms_norm': False},
  'odd sinusoids': {'d_pos_emb': 5, 'sinusoidal_cat_pos_emb': True},
  'relu': {'activation_type': 'relu', 'residual_activation_type': 'relu'},
  'dense activations': {'afrac': None},
  'all activations': {'afrac': 1},
  'few neurons': {'afrac': 0.03, 'afrac_loctypes': 'mlp_neuron'},
  'no sites': {'afrac_loctypes': ''},
  'widths by default': {'d_head': None, 'd_mlp': None},
  'wide heads': {'d_head': 12},
  'training switches': {
    'dropout': 0.1,
    'debug_nans': True,
    'grad_checkpointing': True,
    'enable_sparse_kernels': True,
  },
  **{f'only {site}': {'afrac_loctypes': site} for site in SITES},
}


def _run(config, params, tokens):
  with jax.default_matmul_precision('highest'):
    run = jax.jit(lambda p, t: GPT(config).apply({'params': p}, t))
    return run(params, tokens)


def _assert_equal(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)
  bits = [np.asarray(a).view(np.uint32) for a in jax.tree.leaves(first)]
  others = [np.asarray(a).view(np.uint32) for a in jax.tree.leaves(second)]
  for a, b in zip(bits, others, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.fixture
def model(tmp_path):
  """A released model that tests may spoil: its directory, fields, tensors."""
  state = released_models.random_state({})
  fields = released_models.write(tmp_path / 'model', {}, state)
  return tmp_path / 'model', fields, state


@pytest.mark.parametrize('case', CASES)
def test_recorded_logits_loss_and_activations_are_matched(case):
  config, params = openai_release.load(RECORDED / case)
  recorded = np.load(RECORDED / case / 'io.npz')
  logits, activations = _run(config, params, recorded['tokens'])
  np.testing.assert_allclose(logits, recorded['logits'], atol=5e-5, rtol=1e-5)
  log_probs = jax.nn.log_softmax(logits[:, :-1])
  nll = -jnp.take_along_axis(
    log_probs, recorded['tokens'][:, 1:, None], axis=-1
  )
  np.testing.assert_allclose(nll[..., 0], recorded['nll'], atol=5e-5)
  assert abs(float(nll.mean()) - float(recorded['loss'])) <= 1e-5
  hooks = [str(name) for name in recorded['hook_names']]
  # What enters AbsTopK is recorded here, too, and not in the released code.
  ours = [name for name in activations if not name.endswith('.raw')]
  assert sorted(hooks) == sorted(ours)
  for hook in hooks:
    expected = recorded['act__' + hook.replace('.', '__')]
    found = np.asarray(activations[hook])
    np.testing.assert_allclose(found, expected, atol=5e-5, rtol=1e-5)
    if config.activation_density is not None:
      np.testing.assert_array_equal(found != 0, expected != 0, err_msg=hook)


def _check_variant(tmp_path, fields):
  state = released_models.random_state(fields)
  written = released_models.write(tmp_path / 'theirs', fields, state)
  config, params = openai_release.load(tmp_path / 'theirs')
  tokens = np.random.default_rng(1).integers(0, 24, (2, 12))
  logits, activations = _run(config, params, tokens)
  expected, seen = release_reference.forward(written, state, tokens)
  np.testing.assert_allclose(logits, expected, atol=5e-5, rtol=1e-5)
  ours = {k: v for k, v in activations.items() if not k.endswith('.raw')}
  assert ours.keys() == seen.keys()
  for hook, value in seen.items():
    np.testing.assert_allclose(
      ours[hook], value, atol=5e-5, rtol=1e-5, err_msg=hook
    )
  openai_release.save(tmp_path / 'ours', config, params)
  again, same = openai_release.load(tmp_path / 'ours')
  assert again == config
  _assert_equal(params, same)
  stored = torch_file.read(tmp_path / 'ours' / 'final_model.pt')
  masks = {name for name in state if name.endswith('.attn.bias')}
  assert stored.keys() == state.keys() - masks
  for name, array in stored.items():
    np.testing.assert_array_equal(array, state[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['layer norm without biases', 'tied', 'sink'])
def test_some_switches_match_a_reference_and_come_back(tmp_path, name):
  _check_variant(tmp_path, VARIANTS[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_every_switch_matches_a_reference_and_comes_back(tmp_path, name):
  _check_variant(tmp_path, VARIANTS[name])


@pytest.mark.slow
def test_pairs_of_switches_match_a_reference_and_come_back(tmp_path):
  rng = np.random.default_rng(0)
  for number in range(8):
    fields = {}
    for name in rng.choice(list(VARIANTS), 3, replace=False):
      fields |= VARIANTS[name]
    if fields.get('sink'):
      fields['flash'] = True
    if fields.get('afrac') == 0.03:
      fields['afrac_loctypes'] = 'mlp_neuron'
    (tmp_path / str(number)).mkdir()
    _check_variant(tmp_path / str(number), fields)


OWN = {
  'none': {'position': 'none'},
  'added': {'position': 'added'},
  'concat': {'position': 'concat', 'd_position': 6},
  'sinusoids': {'position': 'concat_sinusoidal', 'd_position': 6},
  'layer norm': {'norm': 'layer', 'tied_unembed': True, 'bigram_table': False},
}


@pytest.mark.slow
@pytest.mark.parametrize('name', OWN)
def test_models_of_ours_come_back_exactly(tmp_path, name):
  config = GPTConfig(
    vocab_size=19, n_layer=2, d_model=16, d_head=4, n_head=4, d_mlp=20
  )
  config = dataclasses.replace(config, context_length=8, **OWN[name])
  tokens = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(GPT(config).init)(jax.random.key(0), tokens)['params']
  openai_release.save(tmp_path, config, params)
  again, same = openai_release.load(tmp_path)
  assert again == config
  assert jax.tree.structure(same) == jax.tree.structure(params)
  _assert_equal(params, same)
  if name == 'sinusoids':
    stored = torch_file.read(tmp_path / 'final_model.pt')
    np.testing.assert_array_equal(
      stored['transformer.wpe.weight'], sinusoidal_positions(8, 6)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('norm', 'none'),
    ('causal', False),
    ('dtype', 'bfloat16'),
    ('n_head', 3),
  ],
)
def test_what_the_format_cannot_say_is_not_saved(tmp_path, field, value):
  config = GPTConfig(vocab_size=19, n_layer=1, d_model=16, d_head=4)
  config = dataclasses.replace(config, **{field: value})
  tokens = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(GPT(config).init)(jax.random.key(0), tokens)['params']
  with pytest.raises(ValueError, match=rf'model\.{field} .*{value}') as error:
    openai_release.save(tmp_path / 'new', config, params)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'new').exists()


def test_other_parameters_are_not_saved(model, tmp_path):
  config, params = openai_release.load(model[0])
  for spoilt in (
    params | {'wte': {'embedding': jnp.zeros((3, 3))}},
    {k: v for k, v in params.items() if k != 'h_1'},
    params | {'more': jnp.zeros(3)},
    jax.tree.map(lambda a: a.astype(jnp.float16), params),
  ):
    with pytest.raises(ValueError, match=r'^params must have '):
      openai_release.save(tmp_path / 'new', config, spoilt)


def test_safetensors_and_wrapped_names_are_read_like_torch_files(model, caplog):
  directory, _, state = model
  config, params = openai_release.load(directory)
  (directory / 'final_model.pt').unlink()
  path = directory / 'model.safetensors'
  wrapped = {f'_orig_mod.{name}': array for name, array in state.items()}
  safetensors.numpy.save_file(wrapped, path)
  again, same = openai_release.load(directory)
  assert again == config
  _assert_equal(params, same)
  assert '_orig_mod.' in caplog.text
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match=r'model.safetensors must'):
    openai_release.load(directory)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, np.float16])
def test_half_precision_is_widened_exactly(model, dtype):
  directory, fields, state = model
  half = {name: array.astype(dtype) for name, array in state.items()}
  released_models.write(directory, fields, half)
  _, params = openai_release.load(directory)
  kernel = params['h_1']['mlp']['c_fc']['kernel']
  assert kernel.dtype == jnp.float32
  expected = half['transformer.h.1.mlp.c_fc.weight'].T.astype(np.float32)
  np.testing.assert_array_equal(kernel, expected)


def test_strays_are_logged_and_what_is_missing_has_the_published_default(
  model, caplog
):
  directory, fields, state = model
  strays = {'pfrac': 0.25, 'n_embd': 5, 'afrac_ste': None, 'n_mlp': 48}
  drop = ('d_mlp', 'sink', 'd_head', 'dropout', 'bias', 'activation_type')
  config, _ = openai_release.load(directory)
  del state['final_logits_bias']
  released_models.write(directory, fields | strays, state, drop)
  again, params = openai_release.load(directory)
  assert again == dataclasses.replace(config, final_logits_bias=False)
  assert 'final_logits_bias' not in params
  for stray in ('pfrac=0.25', 'n_embd=5', 'afrac_ste=None'):
    assert stray in caplog.text


def test_a_frozen_bigram_table_may_be_missing(model):
  directory, fields, state = model
  del state['bigram_table']
  released_models.write(directory, fields, state)
  with pytest.raises(ValueError, match='bigram_table'):
    openai_release.load(directory)
  fields = fields | {'learnable_bigram_table': False}
  released_models.write(directory, fields, state)
  assert not openai_release.load(directory)[0].bigram_table


@pytest.mark.parametrize(
  ('fields', 'part'),
  [
    ({'frobnicate': 1}, 'frobnicate'),
    ({'use_tied_aux_matrix': True}, 'use_tied_aux_matrix'),
    ({'mup': True}, 'mup'),
    ({'sink': True, 'flash': False}, 'flash with sink'),
    ({'n_mlp': 47}, 'd_mlp and n_mlp'),
    ({'n_layer': 3}, 'transformer.h.2'),
    ({'n_layer': 10**9}, '1000000000 layers'),
    ({'vocab_size': 10**9}, r'transformer\.wte\.weight of shape'),
    ({'n_layer': 2.0}, 'n_layer'),
    ({'bias': 1}, 'bias'),
    ({'bias': False}, r'c_attn\.bias'),
    ({'rms_norm': False}, r'ln_1\.bias'),
    ({'n_head': 5}, 'n_head'),
    ({'afrac': 2}, 'afrac'),
    ({'afrac': 0}, 'activation_density'),
    ({'afrac_loctypes': 'attn_y'}, 'attn_y'),
    ({'activation_type': 'tanh'}, 'tanh'),
    ({'block_size': 11}, r'transformer\.wpe\.weight of shape'),
    ({'d_pos_emb': 0}, 'd_pos_emb'),
    ({'tied_unembed': True}, r'lm_head\.weight equal'),
  ],
)
def test_a_wrong_config_is_refused_in_one_line(model, fields, part):
  directory, _, state = model
  released_models.write(directory, fields, state)
  with pytest.raises(ValueError, match=part) as error:
    openai_release.load(directory)
  assert '\n' not in str(error.value)
  assert str(directory) in str(error.value)


@pytest.mark.parametrize(
  'text',
  ['', '[]', '{"n_layer": 1, "n_layer": 1}', '{"afrac": NaN}', '[' * 10**5]
  + ['{"n_layer": ' + '9' * 5000 + '}', '"' + 'x' * (1 << 20) + '"', '\x00'],
)
def test_what_is_no_config_is_refused_in_one_line(model, text):
  (model[0] / 'beeg_config.json').write_text(text)
  with pytest.raises(ValueError, match=r'beeg_config.json must') as error:
    openai_release.load(model[0])
  assert '\n' not in str(error.value)


def _renamed(state):
  return {n.replace('c_fc', 'fc'): a for n, a in state.items()}


@pytest.mark.parametrize(
  ('spoil', 'part'),
  [
    (lambda s: s | {'transformer.more': np.zeros(2)}, r'transformer\.more'),
    (lambda s: {k: s[k] for k in s if 'ln_f' not in k}, r'ln_f\.weight'),
    (_renamed, r'no .*c_fc.* and 1 more'),
    (lambda s: s | {'bigram_table': np.zeros((3, 3))}, r'\(24, 24\).*\(3, 3\)'),
    (lambda s: s | {'bigram_table': np.zeros((24, 24))}, 'float64'),
    (lambda s: s | {'bigram_table': np.zeros((24, 24), int)}, 'int64'),
    (lambda s: s | {'bigram_table': 3}, 'tensors by name'),
    (lambda s: s | {3: np.zeros(3)}, 'tensors by name'),
    (lambda s: list(s.values()), 'a dict of tensors'),
  ],
)
def test_wrong_tensors_are_refused_in_one_line(model, spoil, part):
  directory, _, state = model
  torch_file.write(directory / 'final_model.pt', spoil(state))
  with pytest.raises(ValueError, match=part) as error:
    openai_release.load(directory)
  assert '\n' not in str(error.value)
  assert 'final_model.pt' in str(error.value)


def test_a_saved_model_is_whole_or_not_there(model, monkeypatch):
  directory, _, _ = model
  config, params = openai_release.load(directory)

  def fail(*_):
    raise OSError('disk is full')

  monkeypatch.setattr(torch_file, 'write', fail)
  with pytest.raises(OSError, match='full'):
    openai_release.save(directory, config, params)
  left = sorted(path.name for path in directory.iterdir())
  assert left == ['final_model.pt']
