"""Gates on the edges of a small model, as an edit of its parameters.

What `gates.apply_gates` does to a whole model, done to what `extract.shrink`
made of a circuit: kernel * g, and bias + mean @ (kernel * (1 - g)).
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.extracted.small_arrays import Linear, SmallModel
from sparse_interp.circuits.gating.gates import EdgeIndex, Gates, Values
from sparse_interp.circuits.parts import Parts
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_ends, read_site


def kept_positions(
  small: SmallModel, edges: EdgeIndex, parts: Parts
) -> dict[str, Int[np.ndarray, '3 _']]:
  """Where the kept edges of a circuit are in its small model.

  Args:
    small: from `extract.shrink`.
    edges: nonzero weights of the whole model.
    parts: of the circuit.

  Returns:
    {matrix name: row and column in the small kernel, and number of the target
    among the kept nodes of its site}.
  """
  positions = {}
  for name, kept in parts.edges.items():
    source, target = edge_ends(name)
    rows, columns = np.asarray(edges[name])[:, kept]
    linear = product_into(small, target)
    number = np.searchsorted(parts.nodes[target], columns)
    # Kernels keep all their columns where AbsTopK acts.
    wide = linear is not None and linear.kept is not None
    positions[name] = np.stack(
      [
        np.searchsorted(parts.nodes[source], rows),
        columns if wide else number,
        number,
      ]
    )
  return positions


def source_means(
  config: GPTConfig, values: Values, parts: Parts
) -> dict[str, Float[Array, '_']]:
  """{matrix name: what its kept sources take when removed}."""
  means = {}
  for name in parts.edges:
    source, _ = edge_ends(name)
    means[name] = values[read_site(config, source)][parts.nodes[source]]
  return means


def _place(target):
  """Block number and the field of `Block` with the product that writes it."""
  layer, kind, site = target.split('.')
  field = {'post_act': 'neurons', 'resid_delta': 'out'}.get(site, site)
  return 2 * int(layer) + (kind == 'mlp'), field


def product_into(small: SmallModel, target: str) -> Linear | None:
  """The product that writes a site; None where no node of it is kept."""
  number, field = _place(target)
  return getattr(small.blocks[number], field)


def gate_small_edges(
  small: SmallModel,
  positions: Mapping[str, Int[Array | np.ndarray, '3 _']],
  means: Mapping[str, Float[Array, '_']],
  gates: Gates,
) -> SmallModel:
  """A small model without some of its edges.

  Args:
    small: the model.
    positions: from `kept_positions`.
    means: {matrix name: what its kept sources take when removed}.
    gates: {matrix name: gates of the kept edges, in their order}.
  """
  blocks = list(small.blocks)
  for name, (rows, columns, _) in positions.items():
    number, field = _place(edge_ends(name)[1])
    block = blocks[number]
    linear = getattr(block, field)
    if linear is None or not rows.shape[0]:
      continue
    weights = linear.kernel[rows, columns] * gates[name]
    kernel = jnp.zeros_like(linear.kernel).at[rows, columns].set(weights)
    bias = linear.bias + means[name] @ (linear.kernel - kernel)
    linear = linear._replace(kernel=kernel, bias=bias)
    blocks[number] = block._replace(**{field: linear})
  return dataclasses.replace(small, blocks=tuple(blocks))
