"""Models written by hand, each for one falsehood about circuits.

One layer, no norm. Channel 0 of the embedding is +1 for EVIDENCE_A and -1 for
EVIDENCE_B, channel 1 is 1 for every token; channel 3 of the last stream
separates the two answers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import constant_sites
from sparse_interp.tasks.encoding import EncodedTask
from tests.circuits.known_model import ANSWERS, EVIDENCE, make_known_task

_WIDTH = 8


def task_with_evidence_last(pairs, seed):
  """Prompts of fillers, the evidence in the last place."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(5, 12, (pairs, 1, _WIDTH)).repeat(2, axis=1)
  tokens[:, :, -1] = EVIDENCE
  return EncodedTask(
    name='evidence',
    tokens=tokens.astype(np.int32),
    last=np.full((pairs, 2), _WIDTH - 1, np.int32),
    answers=np.tile(np.array(ANSWERS, np.int32), (pairs, 1)),
    conditions=['early', 'late'] * (pairs // 2),
    rejected={},
  )


class _Weights:
  """Zeros to be filled in."""

  def __init__(self, config):
    width, heads, neurons = config.d_model, config.d_attn, config.mlp_width
    self.embedding = np.zeros((config.vocab_size, width))
    self.embedding[list(EVIDENCE), 0] = 1, -1
    self.embedding[:, 1] = 1
    self.q, self.k, self.v = (np.zeros((width, heads)) for _ in 'qkv')
    self.attn_out = np.zeros((heads, width))
    self.neurons = np.zeros((width, neurons))
    self.mlp_out = np.zeros((neurons, width))
    self.unembed = np.zeros((width, config.vocab_size))
    self.unembed[3, list(ANSWERS)] = 1, -1
    self.offset = np.zeros(config.vocab_size)
    self.sink = np.zeros(config.n_heads)

  def params(self, config):
    attn = {
      'c_attn': {'kernel': np.concatenate([self.q, self.k, self.v], axis=1)},
      'c_proj': {'kernel': self.attn_out},
    }
    if config.sink:
      attn['sink_logit'] = self.sink
    params = {
      'wte': {'embedding': self.embedding},
      'h_0': {
        'attn': attn,
        'mlp': {
          'c_fc': {'kernel': self.neurons},
          'c_proj': {'kernel': self.mlp_out},
        },
      },
      'lm_head': {'kernel': self.unembed},
      'final_logits_bias': self.offset,
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def config_with(**fields):
  """A configuration of these models."""
  return GPTConfig(
    **{
      'vocab_size': 12,
      'n_layer': 1,
      'd_model': _WIDTH,
      'd_head': 4,
      'd_mlp': 4,
      'context_length': _WIDTH,
      'norm': 'none',
      'activation': 'relu',
      'use_bias': False,
      'activation_density': None,
      'bigram_table': False,
      'final_logits_bias': True,
      **fields,
    }
  )


def units_of(config, weights, means=None, closed=False, gates='nodes'):
  """Units of a model with these weights; means are 0 but for those given."""
  values = {
    s: np.zeros(w, np.float32) for s, w in constant_sites(config).items()
  }
  for name, value in (means or {}).items():
    site, channel = name.split(':')
    values[site][int(channel)] = value
  model = gated_model.make(
    config, weights.params(config), values, closed=closed
  )
  return units_lib.make(model, gates)


def two_paths_and_a_bias(closed=False, bias=True):
  """Values 4 and 5 both carry the evidence; neuron 0 is 1 for every token.

  On text the neuron is 0, so that without it every answer is shifted.
  """
  config = config_with()
  weights = _Weights(config)
  weights.v[0, [4, 5]] = 6
  weights.attn_out[[4, 5], 3] = 6
  if bias:
    weights.neurons[1, 0], weights.mlp_out[0, 3] = 1, 6
    weights.offset[ANSWERS[0]] = -12
  return units_of(config, weights, closed=closed)


def share_of_the_sink(closed=False):
  """Head 1 looks at evidence a, and into its sink where there is b.

  The value that it moves is the same for all tokens.
  """
  config = config_with(sink=True)
  weights = _Weights(config)
  weights.q[1, 4], weights.k[0, 4] = 6, 6
  weights.v[1, 4] = 1
  weights.sink[1] = 9
  weights.attn_out[4, 3] = 6
  weights.offset[ANSWERS[0]] = -6
  # The value is its mean, and half of it is mixed on text.
  means = {'0.attn.v:4': 1, '0.attn.y:4': 0.5}
  means |= {'0.attn.act_in:1': 1, '0.attn.q:4': 6}
  return units_of(config, weights, means, closed)


def a_competitor(site, closed=False):
  """One node is the same for both sides, until another outdoes it for a.

  Args:
    site: 'mlp_neuron' or 'mlp_in', where AbsTopK keeps one of them.
    closed: see `gated_model.GatedModel`.
  """
  width = 4 if site == 'mlp_neuron' else _WIDTH
  config = config_with(activation_density=1 / width, activation_sites=(site,))
  weights = _Weights(config)
  if site == 'mlp_in':
    weights.embedding[list(EVIDENCE), 0] = 2, 0
  weights.neurons[1, 0], weights.neurons[0, 1] = 1, 2
  weights.mlp_out[0, 3], weights.mlp_out[1, 4] = -6, 1
  weights.offset[ANSWERS[0]] = 6
  return units_of(config, weights, closed=closed)


def decided_by_the_last_token(closed=True):
  """The bigram table knows all that is to be known; its bias is no circuit."""
  config = config_with(bigram_table=True)
  weights = _Weights(config)
  weights.v[0, 4], weights.attn_out[4, 3] = 0.1, 0.1
  units = units_of(config, weights, closed=closed)
  table = np.zeros((config.vocab_size, config.vocab_size), np.float32)
  table[EVIDENCE, ANSWERS] = 6
  params = {**units.model.params, 'bigram_table': jnp.asarray(table)}
  values = units.model.values
  model = gated_model.make(config, params, values, closed=closed)
  return units_lib.make(model, 'nodes')


known_task = make_known_task
