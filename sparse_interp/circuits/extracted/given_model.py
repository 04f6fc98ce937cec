"""A closed circuit inside its model, where removed parts take given values.

What `small_model` is for constants, this is for values of other prompts, one
for each position: only kept rows and columns are multiplied. What removed
nodes add to every product is known before any circuit is tried, since in a
closed circuit nothing depends on kept nodes that is removed. The residual
stream stays whole, for its norms.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.extracted.small_model import Keep
from sparse_interp.circuits.extracted.stream import position_channels
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gates import Gates, Values
from sparse_interp.models import GPTConfig
from sparse_interp.models.layers import (
  Norm,
  activate,
  keys_seen,
  rotate,
  sparsify,
)
from sparse_interp.models.sites import (
  competing_sites,
  edge_matrices,
  edge_name,
  mixed_site,
)
from sparse_interp.ops.attention.attention import attention

ByName = Mapping[str, Float[Array, '...']]


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['params', 'nodes', 'kernels', 'positions', 'heads', 'places'],
  meta_fields=['config'],
)
@dataclasses.dataclass(frozen=True)
class GivenModel:
  """The circuit; see `make`, `take` and `apply`.

  Attributes:
    config: the model.
    params: its parameters; of the matrices of edges, biases alone are read.
    nodes: {site: kept channels}.
    kernels: {matrix name: kept rows and columns}.
    positions: {act_in site: what its kept position channels hold}.
    heads: {layer: those with kept values}; others add nothing that varies.
    places: {site of q, k or v: where its kept channels are among those of these
      heads, beyond the last where they are of another}.
  """

  config: GPTConfig
  params: dict
  nodes: Mapping[str, Int[Array, '_']]
  kernels: ByName
  positions: ByName
  heads: Mapping[str, Int[Array, '_']]
  places: Mapping[str, Int[Array, '_']]


class Given(NamedTuple):
  """What does not depend on kept nodes, for one batch.

  Attributes:
    added: {target site: what bias and removed nodes add to the kept columns of
      its product}, and {`resid_delta` site: ... to the stream}.
    held: {site: what its kept nodes take when they are removed, too}.
    whole: {site: what all nodes take}, for `final_resid`, and queries and keys
      of the heads with kept values.
  """

  added: ByName
  held: ByName
  whole: ByName


def make(
  config: GPTConfig, params: dict, nodes: Mapping[str, Int[np.ndarray, '_']]
) -> GivenModel:
  """Gathers the kept rows and columns.

  Args:
    config: the model.
    params: its parameters, dense.
    nodes: {site: sorted kept channels}; `final_resid` may be absent.
  """
  kernels = {
    matrix.name: matrix.block(params)[
      np.ix_(nodes[matrix.source], nodes[matrix.target])
    ]
    for matrix in edge_matrices(config)
  }
  positions = {}
  if config.position.startswith('concat'):
    for site in nodes:
      if site.endswith('act_in'):
        layer, kind, _ = site.split('.')
        kept = nodes[site][nodes[site] >= config.d_model] - config.d_model
        table = position_channels(config, params, int(layer), kind)[:, kept]
        positions[site] = jnp.asarray(table, jnp.float32)
  heads, places = {}, {}
  for layer in range(config.n_layer):
    active = np.unique(nodes[f'{layer}.attn.v'] // config.d_head)
    channels = active[:, None] * config.d_head + np.arange(config.d_head)
    for site in (f'{layer}.attn.{name}' for name in 'qkv'):
      place = np.full(config.d_attn, channels.size)
      place[channels.ravel()] = np.arange(channels.size)
      places[site] = jnp.asarray(place[nodes[site]], jnp.int32)
    heads[str(layer)] = jnp.asarray(active, jnp.int32)
  nodes = {site: jnp.asarray(kept, jnp.int32) for site, kept in nodes.items()}
  return GivenModel(config, params, nodes, kernels, positions, heads, places)


@jax.jit
def take(given: GivenModel, values: Values) -> Given:
  """What removed nodes make of their values.

  Args:
    given: the circuit.
    values: {site: (batch, time, width)}, also after attention has mixed them.
  """
  config, nodes, added = given.config, given.nodes, {}
  values = {site: jnp.asarray(x, jnp.float32) for site, x in values.items()}
  for matrix in edge_matrices(config):
    block, kept = matrix.block(given.params), nodes[matrix.source]
    removed = block.at[kept].set(0)[:, nodes[matrix.target]]
    added[matrix.target] = values[mixed_site(matrix.source)] @ removed
    node = given.params
    for key in matrix.path[:-1]:
      node = node[key]
    if 'bias' in node:
      bias = node['bias'][matrix.start : matrix.stop]
      added[matrix.target] += bias[nodes[matrix.target]]
  held, whole = {}, {}
  for site, kept in nodes.items():
    own = values[mixed_site(site)]
    held[site] = own[..., kept]
    if site.endswith('resid_delta'):
      whole[site] = own.at[..., kept].set(0)
    if site.endswith(('attn.q', 'attn.k')):
      by_head = own.reshape(*own.shape[:2], config.n_heads, config.d_head)
      whole[site] = by_head[:, :, given.heads[site.split('.')[0]]]
    if site == 'final_resid':
      whole[site] = own
  return Given(added, held, whole)


@jax.jit
def answers(
  given: GivenModel, taken: Given, gates: Gates, batch: Batch
) -> Float[Array, 'size ...']:
  """What the circuit answers without further nodes.

  Args:
    given: the circuit.
    taken: from `take`, for the same prompts.
    gates: {site: gates of its kept nodes}; what is absent stays whole.
    batch: pairs or sequences.
  """
  return batch.read(_logits(given, taken, gates, **batch.inputs()))


def _logits(given, taken, gates, tokens, positions=None, lengths=None):
  config, params = given.config, given.params
  keep = Keep(True, competing_sites(config), gates)
  seen = keys_seen(config, tokens.shape[1], lengths)
  x = params['wte']['embedding'][tokens]
  if config.position == 'added':
    x = x + params['wpe']['embedding'][: tokens.shape[1]]
  for layer in range(config.n_layer):
    before = x
    delta = _attention(given, taken, keep, layer, x, seen)
    x = _add(config, x, delta, 'resid_post_attn')
    read = before if config.parallel_residual else x
    delta = _mlp(given, taken, keep, layer, read)
    x = _add(config, x, delta, 'resid_post_mlp')
  if positions is not None:
    x = jnp.take_along_axis(x, positions[:, None, None], axis=1)
    tokens = jnp.take_along_axis(tokens, positions[:, None], axis=1)
  if 'final_resid' in given.nodes:
    x = _hold_stream(given, taken, keep, x, positions)
  logits = _unembed(config, params, x, tokens)
  return logits if positions is None else logits[:, 0]


def _add(config, x, delta, site):
  x = x + delta
  relu = config.residual_activation == 'relu'
  return sparsify(config, site, jax.nn.relu(x) if relu else x)


def _norm(config, params, x):
  return Norm(config).apply({'params': params}, x)


def _read(given, taken, keep, layer, kind, x):
  """The kept nodes of an act_in site."""
  config, site = given.config, f'{layer}.{kind}.act_in'
  norm = {'attn': 'ln_1', 'mlp': 'ln_2'}[kind]
  kept = given.nodes[site]
  if config.norm != 'none':
    x = _norm(config, given.params[f'h_{layer}'][norm], x)
  if site in given.positions:
    p = given.positions[site][: x.shape[1]]
    from_stream = x[..., kept[: kept.shape[0] - p.shape[1]]]
    p = jnp.broadcast_to(p, (*x.shape[:2], p.shape[1]))
    x = jnp.concatenate([from_stream, p], axis=-1)
  else:
    x = x[..., kept]
  return keep.settle(site, x, None, taken.held[site])


def _product(given, taken, source, target, x):
  return x @ given.kernels[edge_name(source, target)] + taken.added[target]


def _write(given, taken, keep, source, target, x):
  """What half a block adds to the stream, removed nodes included."""
  delta = _product(given, taken, source, target, x)
  delta = keep.settle(target, delta, None, taken.held[target])
  return taken.whole[target].at[..., given.nodes[target]].add(delta)


def _attention(given, taken, keep, layer, x, seen):
  config, site = given.config, f'{layer}.attn'
  x = _read(given, taken, keep, layer, 'attn', x)
  active = given.heads[str(layer)]
  if not active.size:
    y = jnp.zeros((*x.shape[:2], 0))
    return _write(given, taken, keep, f'{site}.v', f'{site}.resid_delta', y)
  heads = []
  for name in ('q', 'k', 'v'):
    own, shape = f'{site}.{name}', (*x.shape[:2], active.size, config.d_head)
    part = _product(given, taken, f'{site}.act_in', own, x)
    part = keep.compete(own, part, None)
    # Values are removed after they are mixed; those never kept do not matter.
    around = jnp.zeros(shape)
    if name != 'v':
      part = keep.hold(own, part, taken.held[own])
      around = taken.whole[own]
    flat = around.reshape(*shape[:2], -1)
    part = flat.at[..., given.places[own]].set(part, mode='drop')
    heads.append(part.reshape(shape))
  if config.position == 'rotary':
    heads[:2] = (rotate(config, part) for part in heads[:2])
  sink = given.params[f'h_{layer}']['attn'].get('sink_logit')
  sink = None if sink is None else sink[active]
  y = attention(*heads, seen, sink)
  y = y.reshape(*y.shape[:2], -1)[..., given.places[f'{site}.v']]
  y = keep.hold(f'{site}.v', y, taken.held[f'{site}.v'])
  return _write(given, taken, keep, f'{site}.v', f'{site}.resid_delta', y)


def _mlp(given, taken, keep, layer, x):
  site = f'{layer}.mlp'
  x = _read(given, taken, keep, layer, 'mlp', x)
  neurons = f'{site}.post_act'
  hidden = _product(given, taken, f'{site}.act_in', neurons, x)
  hidden = activate(given.config, hidden)
  hidden = keep.settle(neurons, hidden, None, taken.held[neurons])
  return _write(given, taken, keep, neurons, f'{site}.resid_delta', hidden)


def _hold_stream(given, taken, keep, x, positions):
  """The stream before the last norm, where it answers."""
  kept = given.nodes['final_resid']
  held, whole = taken.held['final_resid'], taken.whole['final_resid']
  if positions is not None:
    at = lambda v: jnp.take_along_axis(v, positions[:, None, None], axis=1)  # noqa: E731
    held, whole = at(held), at(whole)
  own = keep.hold('final_resid', x[..., kept], held)
  return whole.at[..., kept].set(own)


def _unembed(config, params, x, tokens):
  if config.norm != 'none':
    x = _norm(config, params['ln_f'], x)
  kernel = (
    params['wte']['embedding'].T
    if config.tied_unembed
    else params['lm_head']['kernel']
  )
  logits = x @ kernel
  if config.bigram_table:
    logits = logits + params['bigram_table'][tokens]
  if config.final_logits_bias:
    logits = logits + params['final_logits_bias']
  return logits
