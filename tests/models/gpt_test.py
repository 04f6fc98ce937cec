import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.gpt import recorded_names
from sparse_interp.models.sites import edge_matrices, node_sites

SMALL = GPTConfig(vocab_size=19, n_layer=2, d_model=16, d_head=4)


@functools.cache
def _init(config):
  """Everything nonzero, so that a switch that is not wired shows."""
  # Drawn by numpy: to compile the model's own draws takes as long as the model.
  shapes = jax.eval_shape(
    GPT(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32)
  )['params']
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    mean = 1 if path[-1].key == 'scale' else 0
    return jnp.asarray(rng.normal(mean, 0.3, leaf.shape), leaf.dtype)

  return jax.tree.map_with_path(draw, shapes)


def _tokens(config, batch=2, time=7):
  return jax.random.randint(
    jax.random.key(5), (batch, time), 0, config.vocab_size
  )


SWITCHES = {
  'layer norm': {'norm': 'layer'},
  'no norm': {'norm': 'none'},
  'norm epsilon': {'norm_eps': 0.1},
  'gelu by tanh': {'activation': 'gelu_tanh'},
  'relu': {'activation': 'relu'},
  'residual relu': {'residual_activation': 'relu'},
  'parallel residual': {'parallel_residual': True},
  'layer norm without biases': {'norm': 'layer', 'norm_bias': False},
  'no bias': {'use_bias': False},
  'tied': {'tied_unembed': True},
  'sink': {'sink': True},
  'no bigrams': {'bigram_table': False},
  'added positions': {'position': 'added'},
  'concatenated positions': {'position': 'concat', 'd_position': 6},
  'sinusoids': {'position': 'concat_sinusoidal', 'd_position': 6},
  'rotary positions': {'position': 'rotary'},
  'half rotary': {'position': 'rotary', 'rotary_fraction': 0.5},
  'logits bias': {'final_logits_bias': True},
  'dense activations': {'activation_density': None},
  'some sites': {'activation_sites': ('mlp_neuron',)},
  'residual sites': {'activation_sites': ('resid_post_attn', 'resid_post_mlp')},
  'heads': {'n_head': 3},
  'neurons': {'d_mlp': 20},
  'bfloat16': {'dtype': 'bfloat16'},
}
# Variants of others in the list: each costs two compilations.
_MILD = (
  'norm epsilon',
  'gelu by tanh',
  'layer norm without biases',
  'sinusoids',
  'half rotary',
  'some sites',
  'heads',
  'neurons',
)
_OTHER_OUTPUTS = {'bigram_table': False, 'd_output': 5}


@functools.cache
def _run(**switches):
  """Logits and activations of two sequences, and of the same changed at 4."""
  config = dataclasses.replace(SMALL, n_layer=1, **switches)
  tokens = _tokens(config)
  changed = tokens.at[:, 4].set((tokens[:, 4] + 1) % config.vocab_size)
  both = jnp.concatenate([tokens, changed])
  params = _init(config)
  run = jax.jit(lambda p, t: GPT(config).apply({'params': p}, t))
  return config, *run(params, both)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow) if name in _MILD else name
    for name in SWITCHES
  ],
)
def test_every_switch_acts_and_keeps_the_model_causal(name):
  config, logits, activations = _run(**SWITCHES[name])
  assert logits.shape == (4, 7, 19)
  assert logits.dtype == jnp.float32
  assert sorted(activations) == sorted(recorded_names(config))
  for site, width in node_sites(config).items():
    assert activations[site].shape == (4, 7, width)
  _, base, _ = _run()
  assert float(jnp.max(jnp.abs(base - logits))) > 1e-6
  difference = np.abs(logits[:2] - logits[2:])
  assert difference[:, :4].max() < 1e-5
  assert difference[:, 4:].max() > 1e-4


def test_without_causality_every_position_sees_every_other():
  _, logits, _ = _run(causal=False)
  difference = np.abs(logits[:2] - logits[2:]).max(axis=(0, 2))
  assert np.all(difference > 1e-4)


@pytest.mark.parametrize('causal', [False, True])
def test_what_follows_the_length_is_seen_from_nowhere(causal):
  config = dataclasses.replace(SMALL, n_layer=1, causal=causal)
  params, tokens = _init(config), _tokens(config)
  run = jax.jit(
    lambda tokens, lengths: GPT(config).apply(
      {'params': params}, tokens, lengths=lengths
    )[0]
  )
  padded = run(tokens, jnp.array([7, 3]))
  whole, cut = run(tokens, None), run(tokens[:, :3], None)
  np.testing.assert_allclose(padded[0], whole[0], atol=1e-5)
  np.testing.assert_allclose(padded[1, :3], cut[1], atol=1e-5)
  assert causal == (np.abs(whole[1, :3] - cut[1]).max() < 1e-5)


def test_outputs_may_be_something_else_than_tokens():
  config, logits, _ = _run(**_OTHER_OUTPUTS)
  assert logits.shape == (4, 7, 5)
  assert _init(config)['lm_head']['kernel'].shape == (16, 5)


@pytest.mark.parametrize(
  'field', ['tied_unembed', 'bigram_table', 'final_logits_bias']
)
def test_other_outputs_refuse_what_is_as_wide_as_the_vocabulary(field):
  with pytest.raises(ValueError, match=rf'model\.d_output .*5.*{field}'):
    dataclasses.replace(SMALL, **{**_OTHER_OUTPUTS, field: True})


def test_attention_equals_a_plain_loop():
  config = dataclasses.replace(
    SMALL, n_layer=1, sink=True, activation_density=None
  )
  params = _init(config)
  run = jax.jit(lambda p: GPT(config).apply({'params': p}, _tokens(config)))
  _, seen = run(params)
  q, k, v = (np.asarray(seen[f'0.attn.{n}'], np.float64) for n in 'qkv')
  sink = np.asarray(params['h_0']['attn']['sink_logit'], np.float64)
  expected = np.zeros_like(q)
  for b in range(q.shape[0]):
    for head in range(config.n_heads):
      part = slice(head * 4, head * 4 + 4)
      for t in range(q.shape[1]):
        scores = k[b, : t + 1, part] @ q[b, t, part] / np.sqrt(4)
        weights = np.exp(scores)
        weights /= weights.sum() + np.exp(sink[head])
        expected[b, t, part] = weights @ v[b, : t + 1, part]
  np.testing.assert_allclose(seen['0.attn.y'], expected, atol=1e-5)


def test_an_edit_is_what_flows_on_and_what_is_recorded():
  config = dataclasses.replace(SMALL, n_layer=1)
  params, tokens = _init(config), _tokens(config)

  @jax.jit
  def run(factors, offset):
    # One compilation: only the site whose factor is not 1 is changed.
    edits = {
      site: lambda x, f=f: f * x + (f != 1) * offset
      for site, f in factors.items()
    }
    return GPT(config).apply({'params': params}, tokens, edits=edits)

  ones = dict.fromkeys(recorded_names(config), 1.0)
  plain, before = run(ones, 1.0)
  for site in ones:
    logits, seen = run(ones | {site: 0.5}, 1.0)
    np.testing.assert_allclose(seen[site], 0.5 * before[site] + 1, atol=1e-6)
    assert float(jnp.max(jnp.abs(logits - plain))) > 1e-6, site


def test_logits_at_positions_equal_those_of_all_positions():
  params, tokens = _init(SMALL), _tokens(SMALL)
  at = jnp.array([2, 6])
  logits, chosen = jax.jit(
    lambda p: (
      GPT(SMALL).apply({'params': p}, tokens)[0],
      GPT(SMALL).apply({'params': p}, tokens, positions=at)[0],
    )
  )(params)
  np.testing.assert_allclose(chosen, logits[jnp.arange(2), at], atol=1e-6)


def test_bigram_row_of_the_last_token_gets_no_gradient():
  params = _init(SMALL)
  tokens = jnp.array([[18, 3, 18, 5]])

  def loss(table):
    logits, _ = GPT(SMALL).apply(
      {'params': params | {'bigram_table': table}}, tokens
    )
    return jnp.sum(logits**2)

  gradient = jax.jit(jax.grad(loss))(params['bigram_table'])
  assert np.all(np.asarray(gradient)[18] == 0)
  assert np.all(np.asarray(gradient)[3] != 0)


def test_an_unknown_site_is_refused_by_name():
  with pytest.raises(ValueError, match=r'edits .*9\.attn\.q'):
    GPT(SMALL).apply(
      {'params': _init(SMALL)}, _tokens(SMALL), edits={'9.attn.q': jnp.abs}
    )


def test_learned_positions_refuse_a_longer_sequence():
  config = dataclasses.replace(SMALL, position='added', context_length=4)
  with pytest.raises(ValueError, match=r'context_length .4. long, got 7'):
    GPT(config).apply({'params': _init(config)}, _tokens(config))


def test_edge_matrices_name_kernels_of_the_parameter_tree():
  config = dataclasses.replace(SMALL, position='concat', d_position=6)
  params, widths = _init(config), node_sites(config)
  for matrix in edge_matrices(config):
    kernel = params
    for key in matrix.path:
      kernel = kernel[key]
    part = kernel[:, matrix.start : matrix.stop]
    assert part.shape == (widths[matrix.source], widths[matrix.target])
  assert len(edge_matrices(config)) == 6 * config.n_layer


@pytest.mark.parametrize('fraction', [0.0, 0.2, 0.75, 1.5, float('nan')])
def test_rotary_fraction_must_rotate_pairs_of_channels(fraction):
  with pytest.raises(ValueError, match=rf'rotary_fraction .*got {fraction}'):
    dataclasses.replace(SMALL, position='rotary', rotary_fraction=fraction)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('d_model', 30),
    ('d_model', 0),
    ('norm', 'batch'),
    ('activation_density', 0.0),
    ('activation_density', 1.5),
    ('activation_density', 0.01),
    ('activation_sites', ('attn_y',)),
    ('position', 'concat'),
    ('d_position', 3),
    ('d_output', 0),
    ('norm_eps', -1.0),
    ('norm_eps', float('nan')),
    ('rotary_base', 1.0),
    ('position', 'rotated'),
  ],
)
def test_a_wrong_field_is_refused_in_one_line_that_names_it(field, value):
  with pytest.raises(ValueError, match=rf'model\.{field}') as error:
    dataclasses.replace(SMALL, **{field: value})
  assert '\n' not in str(error.value)
  value = value[0] if isinstance(value, tuple) else value
  assert str(value) in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize('tied', [False, True])
def test_all_tokens_are_multiplied_as_one_matrix(tied):
  model = GPT(dataclasses.replace(SMALL, tied_unembed=tied))
  tokens = jnp.zeros((3, 5), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens)
  gradient = jax.grad(lambda p: model.apply(p, tokens)[0].sum())
  products = [
    line
    for line in jax.jit(gradient).lower(params).as_text().splitlines()
    if 'dot_general' in line and 'batching_dims' not in line
  ]
  assert len(products) > 9  # more than those of the forward pass
  for line in products:
    assert '3x5x' not in line
