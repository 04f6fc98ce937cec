"""A model written by hand whose one circuit is known.

One layer, no norm, no AbsTopK. Token EVIDENCE_A writes +1 to residual channel
0 and EVIDENCE_B writes -1; value channel VALUE reads channel 0, attention is
uniform, c_proj writes channel 3, which separates the two answers. All other
weights make noise that favours neither answer.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import node_sites
from sparse_interp.tasks.encoding import EncodedTask

EVIDENCE = (1, 2)
ANSWERS = (3, 4)
VALUE = 5
TRUE_EDGES = {
  '0.attn.act_in->0.attn.v': [(0, VALUE)],
  '0.attn.v->0.attn.resid_delta': [(VALUE, 3)],
}
TRUE_NODES = {
  '0.attn.act_in': [0],
  '0.attn.v': [VALUE],
  '0.attn.resid_delta': [3],
  'final_resid': [3],
}


def make_known_task(pairs: int, seed: int, length: int = 8) -> EncodedTask:
  """Prompts of fillers with one piece of evidence at a random place."""
  rng = np.random.default_rng(seed)
  tokens = np.zeros((pairs, 2, length), np.int32)
  last = rng.integers(length - 3, length, pairs)
  for pair in range(pairs):
    prompt = rng.integers(5, 12, last[pair] + 1)
    place = rng.integers(0, last[pair] + 1)
    for side in (0, 1):
      prompt[place] = EVIDENCE[side]
      tokens[pair, side, : last[pair] + 1] = prompt
  return EncodedTask(
    name='evidence',
    tokens=tokens,
    last=np.repeat(last[:, None], 2, axis=1).astype(np.int32),
    answers=np.tile(np.array(ANSWERS, np.int32), (pairs, 1)),
    conditions=['early', 'late'] * (pairs // 2),
    rejected={},
  )


def _params(config):
  rng = np.random.default_rng(0)
  noise = lambda *shape: rng.normal(0, 0.3, shape)  # noqa: E731
  embedding = noise(config.vocab_size, config.d_model)
  embedding[:, [0, 3]] = 0
  embedding[EVIDENCE[0], 0], embedding[EVIDENCE[1], 0] = 1, -1
  c_attn = np.zeros((config.d_model, 3, config.d_attn))
  c_attn[4:, 2, :4] = noise(config.d_model - 4, 4)
  c_attn[0, 2, VALUE] = 6
  attn_proj = np.zeros((config.d_attn, config.d_model))
  attn_proj[:4, 4:] = noise(4, config.d_model - 4)
  attn_proj[VALUE, 3] = 6
  c_fc = noise(config.d_model, config.mlp_width)
  c_fc[[0, 3]] = 0
  mlp_proj = noise(config.mlp_width, config.d_model)
  mlp_proj[:, [0, 3]] = 0
  unembed = noise(config.d_model, config.vocab_size)
  unembed[:, ANSWERS[1]] = unembed[:, ANSWERS[0]]
  unembed[3, list(ANSWERS)] = 1, -1
  block = {
    'attn': {
      'c_attn': {'kernel': c_attn.reshape(config.d_model, -1)},
      'c_proj': {'kernel': attn_proj},
    },
    'mlp': {'c_fc': {'kernel': c_fc}, 'c_proj': {'kernel': mlp_proj}},
  }
  return {
    'wte': {'embedding': embedding},
    'h_0': block,
    'lm_head': {'kernel': unembed},
  }


def true_units(units):
  """The circuit as a mask of units: nodes, or edges and final nodes."""
  chosen = {
    site: kept for site, kept in TRUE_NODES.items() if site in units.sizes
  }
  for name in TRUE_EDGES.keys() & units.sizes.keys():
    pairs = list(
      zip(*np.asarray(units.model.edges[name]).tolist(), strict=True)
    )
    chosen[name] = [pairs.index(edge) for edge in TRUE_EDGES[name]]
  return units.mask_of(chosen)


def make_known():
  """The model, means of its nodes, tasks, and the circuit that is in it."""
  config = GPTConfig(
    vocab_size=12,
    n_layer=1,
    d_model=8,
    d_head=4,
    d_mlp=8,
    context_length=8,
    norm='none',
    use_bias=False,
    activation_density=None,
    bigram_table=False,
  )
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _params(config))
  means = {s: jnp.zeros(w) for s, w in node_sites(config).items()}
  model = gated_model.make(config, params, means)
  return types.SimpleNamespace(
    config=config,
    params=params,
    sites=node_sites(config),
    means=means,
    model=model,
    units=units_lib.make(model, 'nodes'),
    true_units=true_units,
    train=make_known_task(64, 0),
    test=make_known_task(32, 1),
    nodes=TRUE_NODES,
    edges=TRUE_EDGES,
    answers=ANSWERS,
  )
