"""What a circuit consists of: kept nodes, and kept edges between them.

Units that are kept decide it. With gates on nodes, every nonzero weight between
kept nodes is an edge of the circuit. With gates on edges, the nodes are those
that kept edges join, and what leads nowhere is left out: a neuron or value
needs an edge on both sides, a write needs a later reader of its channel, a
query needs the key of the same channel, or of one it is rotated with, and a
value in its head.

That holds where what was removed is constant. Where it is what another prompt
has there, a head answers with the queries, keys and values of that prompt, and
any one of its own changes the answer: a query needs no key, nor a value of its
own, only that the head writes; and what the head writes needs a query, a key or
the value. Where removed parts come back at random, nothing leads nowhere.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sparse_interp.circuits.ablation_names import CONSTANT, OF_OTHER_PROMPTS
from sparse_interp.circuits.gated_model import (
  GatedModel,
  gates_of_units,
  on_edges,
)
from sparse_interp.circuits.selection import split
from sparse_interp.models.layers import rotary_partner
from sparse_interp.models.sites import node_sites

Masks = dict[str, Bool[np.ndarray, '_']]


class Parts(NamedTuple):
  """Nodes and edges of a circuit.

  Attributes:
    nodes: {site: kept channels, ascending}; `final_resid` only where it has
      gates.
    edges: {matrix name: which of the model's nonzero weights are kept}.
  """

  nodes: dict[str, Int[np.ndarray, '_']]
  edges: Masks

  @property
  def node_count(self) -> int:
    """Kept nodes at all sites."""
    return sum(len(kept) for kept in self.nodes.values())

  @property
  def edge_count(self) -> int:
    """Kept edges in all matrices."""
    return sum(int(kept.sum()) for kept in self.edges.values())


def parts_of(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
) -> Parts:
  """Nodes and edges that kept units stand for."""
  masks = gates_of_units(split(keep, sizes))
  if on_edges(sizes):
    return _parts_of_edges(model, masks)
  nodes = {site: np.flatnonzero(mask) for site, mask in masks.items()}
  return Parts(nodes, _edges_between(model, masks))


def live_units(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
) -> Bool[np.ndarray, 'units']:
  """Kept units without those that lead nowhere.

  Norms and AbsTopK let such units matter all the same, slightly: their removal
  has to be tried, not assumed.
  """
  masks = gates_of_units(split(keep, sizes))
  if on_edges(sizes):
    parts = _parts_of_edges(model, masks)
    live = {**parts.edges}
  else:
    parts = _parts_of_edges(
      model, {**_edges_between(model, masks), **_final(masks)}
    )
    live = {}
  for site, kept in parts.nodes.items():
    mask = np.zeros(node_sites(model.config)[site], bool)
    mask[kept] = True
    live[site] = mask
  for key in sizes:
    if key.endswith('attn.qk'):
      live[key] = live[key[:-1]] | live[key[:-2] + 'k']
  return keep & np.concatenate([live[key] for key in sizes])


def settle(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
) -> Bool[np.ndarray, 'units']:
  """The circuit that kept units make: with gates on edges, only live ones."""
  if on_edges(sizes):
    return live_units(model, keep, sizes)
  return keep


def _final(masks):
  return {k: m for k, m in masks.items() if k == 'final_resid'}


def _edges_between(model: GatedModel, nodes: Masks) -> Masks:
  edges = {}
  for name, index in model.edges.items():
    (source, target), (rows, columns) = name.split('->'), np.asarray(index)
    edges[name] = nodes[source][rows] & nodes[target][columns]
  return edges


def _parts_of_edges(model: GatedModel, masks: Masks) -> Parts:
  """Leaves out dead ends, until there are none, and reads off the nodes."""
  config = model.config
  others = model.ablation in OF_OTHER_PROMPTS
  index = {name: np.asarray(pair) for name, pair in model.edges.items()}
  edges = {name: np.array(masks[name]) for name in index}
  final = masks.get('final_resid', np.ones(config.d_model, bool))
  partner = np.arange(config.d_attn).reshape(config.n_heads, -1)
  partner = partner[:, rotary_partner(config)].ravel()

  def ends(name, side, width):
    """Nodes at the source (0) or target (1) side of kept edges."""
    mask = np.zeros(width, bool)
    mask[index[name][side][edges[name]]] = True
    return mask

  def restrict(name, side, alive):
    edges[name] &= alive[index[name][side]]

  def sweep():
    read = np.array(final)
    for layer in reversed(range(config.n_layer)):
      mlp, attn = f'{layer}.mlp', f'{layer}.attn'
      through(f'{mlp}.post_act', mlp, read, config.mlp_width)
      inputs = f'{mlp}.act_in->{mlp}.post_act'
      reads = ends(inputs, 0, config.block_input_width)
      after = read
      read = read | reads[: config.d_model]
      if not config.parallel_residual:
        after = read
      names = [f'{attn}.act_in->{attn}.{name}' for name in 'qk']
      q, k = (ends(name, 1, config.d_attn) for name in names)
      moved = in_heads(q | k) & others
      values = through(f'{attn}.v', attn, after, config.d_attn, moved)
      live = in_heads(values)
      restrict(names[0], 1, live & (k | k[partner] | others))
      restrict(names[1], 1, live & (q | q[partner] | others))
      for name in (*names, f'{attn}.act_in->{attn}.v'):
        read = read | ends(name, 0, config.block_input_width)[: config.d_model]

  def through(site, block, read, width, moved=False):
    """Cuts the matrices before and after neurons or values to what leads on.

    Those in `moved` have something to say without an edge before them.
    """
    before, after = f'{block}.act_in->{site}', f'{site}->{block}.resid_delta'
    restrict(after, 1, read)
    alive = (ends(before, 1, width) | moved) & ends(after, 0, width)
    restrict(before, 1, alive)
    restrict(after, 0, alive)
    return alive

  def in_heads(channels):
    """All channels of the heads that one of these is in."""
    heads = channels.reshape(config.n_heads, -1).any(axis=1)
    return np.repeat(heads, config.d_head)

  while model.ablation in CONSTANT or others:
    count = sum(mask.sum() for mask in edges.values())
    sweep()
    if sum(mask.sum() for mask in edges.values()) == count:
      break
  nodes = {}
  for site, width in node_sites(config, 'final_resid' in masks).items():
    kept = np.zeros(width, bool)
    for name in index:
      for side, end in enumerate(name.split('->')):
        if end == site:
          kept |= ends(name, side, width)
    nodes[site] = np.flatnonzero(final if site == 'final_resid' else kept)
  return Parts(nodes, edges)
