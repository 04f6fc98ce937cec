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

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sparse_interp.circuits.gating.ablation_names import (
  OF_OTHER_PROMPTS,
)
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.models.layers import rotary_partner
from sparse_interp.models.sites import (
  edge_ends,
  edge_name,
  is_matrix,
  node_sites,
)

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


def parts_of(model: GatedModel, masks: Masks) -> Parts:
  """Nodes and edges of a circuit.

  Args:
    model: the model with its ablation.
    masks: {site: kept nodes} of all sites, or {matrix name: kept edges} of all
      matrices, with `final_resid` where it has gates.
  """
  if _on_edges(masks):
    return _parts_of_edges(model, masks)
  nodes = {site: np.flatnonzero(mask) for site, mask in masks.items()}
  return Parts(nodes, _edges_between(model, masks))


def live(model: GatedModel, masks: Masks) -> Masks:
  """{site or matrix: nodes or edges that lead somewhere}; see `parts_of`."""
  edges = masks
  if not _on_edges(masks):
    edges = {**_edges_between(model, masks), **_final(masks)}
  parts = _parts_of_edges(model, edges)
  found = dict(parts.edges)
  for site, kept in parts.nodes.items():
    found[site] = np.zeros(node_sites(model.config)[site], bool)
    found[site][kept] = True
  return found


def _on_edges(masks):
  return any(is_matrix(key) for key in masks)


def _final(masks):
  return {k: m for k, m in masks.items() if k == 'final_resid'}


def _edges_between(model: GatedModel, nodes: Masks) -> Masks:
  edges = {}
  for name, index in model.edges.items():
    (source, target), (rows, columns) = edge_ends(name), np.asarray(index)
    edges[name] = nodes[source][rows] & nodes[target][columns]
  return edges


def _parts_of_edges(model: GatedModel, masks: Masks) -> Parts:
  """Leaves out dead ends, until there are none, and reads off the nodes."""
  config = model.config
  others = not set(model.kinds).isdisjoint(OF_OTHER_PROMPTS)
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
      inputs = edge_name(f'{mlp}.act_in', f'{mlp}.post_act')
      reads = ends(inputs, 0, config.block_input_width)
      after = read
      read = read | reads[: config.d_model]
      if not config.parallel_residual:
        after = read
      into = [edge_name(f'{attn}.act_in', f'{attn}.{name}') for name in 'qkv']
      q, k = (ends(name, 1, config.d_attn) for name in into[:2])
      moved = in_heads(q | k) & others
      values = through(f'{attn}.v', attn, after, config.d_attn, moved)
      live = in_heads(values)
      restrict(into[0], 1, live & (k | k[partner] | others))
      restrict(into[1], 1, live & (q | q[partner] | others))
      for name in into:
        read = read | ends(name, 0, config.block_input_width)[: config.d_model]

  def through(site, block, read, width, moved=False):
    """Cuts the matrices before and after neurons or values to what leads on.

    Those in `moved` have something to say without an edge before them.
    """
    before = edge_name(f'{block}.act_in', site)
    after = edge_name(site, f'{block}.resid_delta')
    restrict(after, 1, read)
    alive = (ends(before, 1, width) | moved) & ends(after, 0, width)
    restrict(before, 1, alive)
    restrict(after, 0, alive)
    return alive

  def in_heads(channels):
    """All channels of the heads that one of these is in."""
    heads = channels.reshape(config.n_heads, -1).any(axis=1)
    return np.repeat(heads, config.d_head)

  while 'subsets' not in model.kinds:
    count = sum(mask.sum() for mask in edges.values())
    sweep()
    if sum(mask.sum() for mask in edges.values()) == count:
      break
  nodes = {}
  for site, width in node_sites(config, 'final_resid' in masks).items():
    kept = np.zeros(width, bool)
    for name in index:
      for side, end in enumerate(edge_ends(name)):
        if end == site:
          kept |= ends(name, side, width)
    nodes[site] = np.flatnonzero(final if site == 'final_resid' else kept)
  return Parts(nodes, edges)
