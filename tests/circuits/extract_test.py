"""The small model equals the gated model, whatever the switches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import extract, gates, selection, small_model
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import node_sites
from sparse_interp.ops.topk import abs_topk

_BASE = {
  'vocab_size': 24,
  'n_layer': 2,
  'd_model': 16,
  'd_head': 4,
  'context_length': 12,
}
# Each case turns several switches that do not hide one another.
_CASES = {
  'published': {'sink': True},
  'no activation sparsity': {'activation_density': None},
  'layer norm, concatenated positions': {
    'norm': 'layer',
    'position': 'concat',
    'd_position': 4,
    'activation_density': 0.5,
  },
  'rms, sinusoids, sink, all dense': {
    'position': 'concat_sinusoidal',
    'd_position': 4,
    'activation_density': None,
    'sink': True,
    'tied_unembed': True,
    'bigram_table': False,
  },
  'no norm, added positions': {
    'norm': 'none',
    'position': 'added',
    'activation_sites': ('mlp_neuron', 'attn_k', 'attn_out'),
    'final_logits_bias': True,
  },
  'rectified stream, no biases, odd widths': {
    'residual_activation': 'relu',
    'activation': 'relu',
    'use_bias': False,
    'n_head': 3,
    'd_mlp': 40,
    'activation_density': None,
    'norm': 'layer',
  },
}


def _model(switches, seed=0):
  """A model whose every parameter and mean is far from zero, half of them."""
  config = GPTConfig(**{**_BASE, **switches})
  rng = np.random.default_rng(seed)
  tokens = jnp.asarray(rng.integers(0, config.vocab_size, (3, 10)))
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)
  params = jax.tree.map(
    lambda x: jnp.asarray(
      rng.normal(0.1, 0.5, x.shape) * (rng.random(x.shape) < 0.5), jnp.float32
    ),
    shapes['params'],
  )
  means = {
    site: jnp.asarray(rng.normal(0, 0.5, width), jnp.float32)
    for site, width in node_sites(config).items()
  }
  return config, params, means, tokens, rng


@functools.partial(jax.jit, static_argnames='config')
def _run_gated(config, params, means, kept, tokens):
  edits = gates.gate_edits(kept, means)
  return GPT(config).apply({'params': params}, tokens, edits=edits)[0]


def _gated(*args):
  return np.asarray(_run_gated(*args))


@pytest.mark.parametrize('name', _CASES)
def test_logits_equal_those_of_the_gated_model(name):
  config, params, means, tokens, rng = _model(_CASES[name])
  final_resid = 'rectified' not in name
  sites = node_sites(config, final_resid)
  means = {site: means[site] for site in sites}
  apply = jax.jit(small_model.apply)
  for share in (0.15, 0.6):
    nodes = {
      site: np.flatnonzero(rng.random(width) < share)
      for site, width in sites.items()
    }
    if share < 0.5:
      nodes['0.attn.v'] = nodes['1.mlp.act_in'] = np.array([], int)
    kept = selection.gates_of(nodes, sites)
    expected = _gated(config, params, means, kept, tokens)
    small = extract.shrink(config, params, nodes, means)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(
      apply(small, tokens) / scale, expected / scale, atol=1e-5
    )


def test_gates_of_the_small_model_remove_further_nodes_at_one_position():
  config, params, means, tokens, rng = _model({'sink': True})
  sites = node_sites(config)
  nodes = {
    site: np.flatnonzero(rng.random(width) < 0.5)
    for site, width in sites.items()
  }
  fewer = {site: kept[::2] for site, kept in nodes.items()}
  expected = _gated(
    config, params, means, selection.gates_of(fewer, sites), tokens
  )
  small = extract.shrink(config, params, nodes, means)
  removed = {
    site: jnp.asarray(np.arange(kept.size) % 2 == 0, jnp.float32)
    for site, kept in nodes.items()
  }
  positions = jnp.array([3, 9, 0])
  logits = jax.jit(small_model.apply)(small, tokens, positions, removed)
  expected = expected[np.arange(3), positions]
  np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_small_model_without_activation_sparsity_holds_kept_weights_only():
  config, params, means, _, _ = _model(
    {'activation_density': None, 'bigram_table': False}
  )
  nodes = {site: np.array([1]) for site in node_sites(config)}
  small = extract.shrink(config, params, nodes, means)
  assert small.embedding.shape == (config.vocab_size, 1)
  assert small.blocks[0].q.kernel.shape == (1, 1)
  assert small.blocks[1].out.kernel.shape == (1, 1)
  assert small.size() < 0.1 * sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize('count', [3, 30])
def test_rank_of_kept_nodes_agrees_with_abs_topk_and_its_ties(count):
  rng = np.random.default_rng(0)
  full = jnp.asarray(rng.integers(-3, 4, (20, 40)), jnp.float32)
  kept = jnp.asarray(np.sort(rng.choice(40, count, replace=False)))
  for k in (1, 7, 39):
    np.testing.assert_array_equal(
      small_model.keep_largest(full, kept, k), abs_topk(full, k)[:, kept]
    )
