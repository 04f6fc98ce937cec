"""Models of every switch, several in each, too small to take long."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import constant_sites

_BASE = {
  'vocab_size': 24,
  'n_layer': 2,
  'd_model': 16,
  'd_head': 4,
  'context_length': 12,
}
# Each case turns several switches that do not hide one another.
CASES = {
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
  'as GPT-NeoX': {
    'norm': 'layer',
    'norm_eps': 0.3,
    'activation': 'gelu_tanh',
    'position': 'rotary',
    'rotary_fraction': 0.5,
    'parallel_residual': True,
    'activation_density': None,
    'bigram_table': False,
  },
  'rotary, sink, parallel, narrow stream': {
    'position': 'rotary',
    'rotary_base': 3.0,
    'norm_eps': 0.3,
    'sink': True,
    'parallel_residual': True,
    'activation_sites': ('attn_q', 'attn_k', 'mlp_neuron'),
  },
  'as GPT-2': {
    'norm': 'layer',
    'activation': 'gelu_tanh',
    'position': 'added',
    'tied_unembed': True,
    'activation_density': None,
    'bigram_table': False,
  },
  'every position sees all, other outputs': {
    'causal': False,
    'd_output': 5,
    'bigram_table': False,
    'sink': True,
  },
}


def make_model(switches, seed=0):
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
    for site, width in constant_sites(config).items()
  }
  return config, params, means, tokens, rng


def make_case(name):
  """One of the CASES: configuration, parameters, means, tokens, generator."""
  return make_model(CASES[name])
