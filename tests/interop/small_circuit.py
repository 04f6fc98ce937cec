"""A random model of two layers, and a circuit of random nodes in it."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.watching import watch
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.means import site_means
from sparse_interp.models.params_hash import hash_params
from sparse_interp.models.sites import node_sites
from sparse_interp.tasks.encoding import EncodedTask

CONFIG = GPTConfig(
  vocab_size=24,
  n_layer=2,
  d_model=16,
  d_head=4,
  d_mlp=20,
  context_length=12,
  activation_density=0.5,
  sink=True,
  bigram_table=True,
)
ANSWERS = (3, 7)


def make_params(config=CONFIG, seed=0):
  """Random parameters, a third of the hidden weights nonzero."""
  init = jax.jit(GPT(config).init)
  params = init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))['params']
  rng = np.random.default_rng(seed)

  def draw(leaf):
    value = rng.normal(0, 0.5, leaf.shape)
    if leaf.ndim == 2:
      value *= rng.random(leaf.shape) < 1 / 3
    return jnp.asarray(value, jnp.float32)

  return jax.tree.map(draw, params)


def make_task(config=CONFIG, pairs=5, length=9, seed=1):
  """Random prompts of varied length, without the token that pads."""
  rng = np.random.default_rng(seed)
  tokens = np.zeros((pairs, 2, length), np.int32)
  last = rng.integers(length - 4, length, (pairs, 2)).astype(np.int32)
  for pair in range(pairs):
    for side in (0, 1):
      end = last[pair, side] + 1
      tokens[pair, side, :end] = rng.integers(1, config.vocab_size, end)
  return EncodedTask(
    name='random',
    tokens=tokens,
    last=last,
    answers=np.tile(np.array(ANSWERS, np.int32), (pairs, 1)),
    conditions=['all'] * pairs,
    rejected={},
  )


def make_circuit(config=CONFIG, seed=0, keep=0.5):
  """(circuit, params, task, windows) with means over the windows."""
  params = make_params(config, seed)
  rng = np.random.default_rng(seed + 2)
  windows = rng.integers(0, config.vocab_size, (6, 10)).astype(np.int32)
  means = site_means(config, params, [windows])
  model = gated_model.make(config, params, means)
  sites = node_sites(config)
  nodes = {
    site: np.flatnonzero(rng.random(width) < keep)
    for site, width in sites.items()
  }
  units = units_lib.make(model, 'nodes')
  made = units.parts(units.mask_of(nodes))
  task = make_task(config)
  pairs = make_pairs(task)
  gates = {
    site: jnp.zeros(width).at[nodes[site]].set(1.0)
    for site, width in sites.items()
  }
  loss = pairs.losses(gated_model.all_outputs(model, gates, pairs))
  tokens = task.tokens.reshape(-1, task.tokens.shape[2])
  _, seen = watch(model, gates, pairs, nodes)
  circuit = circuit_lib.Circuit(
    task='random',
    description='made for tests',
    config=config,
    gates='nodes',
    sites=sites,
    nodes=nodes,
    edges=circuit_lib.list_edges(config, params, model.edges, made, sites),
    means={site: np.asarray(mean) for site, mean in means.items()},
    scores={},
    scale=1.0,
    shift=0.0,
    ablation={'kind': 'mean', 'over': 'pretraining', 'tokens': windows.size},
    formula={},
    metrics={'test_loss': float(jnp.mean(loss))},
    prune_config={'steps': 3},
    history={'step': [1, 2], 'task_loss': [0.75, 0.5], 'nodes': [9, 8]},
    examples=[
      {
        'pieces': [f'<{token}>' for token in row[: last + 1]],
        'answer': 'x',
        'other_answer': 'y',
        'probability': 0.5,
        'condition': 'all',
        'side': 'ab'[i % 2],
      }
      for i, (row, last) in enumerate(
        zip(tokens, task.last.reshape(-1), strict=True)
      )
    ],
    example_tokens=tokens,
    activations=seen,
    provenance={'params_hash': hash_params(params)},
  )
  return types.SimpleNamespace(
    circuit=circuit,
    params=params,
    task=task,
    windows=windows,
    means=means,
    model=model,
    gates=gates,
  )
