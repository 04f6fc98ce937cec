"""Gates: switches on nodes, learned through a step with a soft gradient.

A gate is 1 where a node keeps its value and 0 where it is frozen at the value
that removal leaves behind. Forward, a gate is exactly 0 or 1; backward, the
step is replaced by the derivative of a sigmoid (arXiv 2511.13653, section A.5;
the exact surrogate is not published, s(x/T) (1 - s(x/T)) / T is the usual one).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.models import GPTConfig, frozen
from sparse_interp.models.sites import (
  EdgeMatrix,
  competing_sites,
  edge_matrices,
  is_matrix,
  mixed_site,
)
from sparse_interp.ops.row_sparse.row_sparse import (
  RowSparse,
  row_sparse_matmul,
)

# {site: (width,) gates of its nodes} and {name of an EdgeMatrix: (edges,) gates
# of its nonzero weights}, in one mapping; values in [0, 1].
Gates = Mapping[str, Float[Array | np.ndarray, '_']]

# {site: what removed parts take there}: one value per node, or the values of
# another run, (batch, time, width).
Values = Mapping[str, Float[Array | np.ndarray, '...']]

# {name of an EdgeMatrix: rows and columns of its nonzero weights}.
EdgeIndex = Mapping[str, Int[Array | np.ndarray, '2 _']]

# {name of an EdgeMatrix: places of its weights among those of its kernel}.
EdgeSlots = Mapping[str, Int[Array | np.ndarray, '_']]


@jax.custom_vjp
def heaviside(
  tau: Float[Array, '...'], temperature: Float[Array, ''] | float
) -> Float[Array, '...']:
  """Step function, 1 where tau > 0, with a sigmoid's derivative backward.

  Args:
    tau: gate parameters; 0 itself counts as off.
    temperature: T > 0 in the surrogate s(tau/T) (1 - s(tau/T)) / T; it gets
      no gradient.
  """
  return (tau > 0).astype(tau.dtype)


def _heaviside_forward(tau, temperature):
  return heaviside(tau, temperature), (tau, temperature)


def _heaviside_backward(residuals, gradient):
  tau, temperature = residuals
  soft = jax.nn.sigmoid(tau / temperature)
  slope = soft * (1 - soft) / temperature
  return gradient * slope, jax.tree.map(jnp.zeros_like, temperature)


heaviside.defvjp(_heaviside_forward, _heaviside_backward)


@jax.custom_vjp
def blend(
  gate: Float[Array, 'width'],
  x: Float[Array, '... width'],
  value: Float[Array, '*batch width'],
) -> Float[Array, '... width']:
  """Returns gate * x + (1 - gate) * value, in the dtype of x.

  The gradient of a gate sums over every position. It is written as a product
  with a vector of ones, which on CPU is a third faster than a reduction over
  the leading axes. The value is a constant and gets no gradient.
  """
  return (gate * x + (1 - gate) * value).astype(x.dtype)


def _blend_forward(gate, x, value):
  return blend(gate, x, value), (gate, x, value)


def _blend_backward(residuals, gradient):
  gate, x, value = residuals
  # Not reshape(-1, width): a site of a small model may have no node at all.
  positions = math.prod(x.shape[:-1])
  by_position = (gradient * (x - value)).astype(gate.dtype)
  by_position = by_position.reshape(positions, x.shape[-1])
  ones = jnp.ones(positions, gate.dtype)
  to_x = (gate * gradient).astype(x.dtype)
  return ones @ by_position, to_x, jnp.zeros_like(value)


blend.defvjp(_blend_forward, _blend_backward)


def apply_gates(
  config: GPTConfig,
  params: dict,
  edges: EdgeIndex,
  gates: Gates,
  values: Values,
  slots: EdgeSlots | None = None,
  closed: bool = False,
) -> tuple[dict, dict[str, Callable[[Array], Array]]]:
  """Turns gates into parameters and edits of a model call.

  A removed node takes its value everywhere. A removed edge from a to b with
  weight w has b see a's value instead of a itself: the kernel becomes W * g,
  and value @ (W * (1 - g)) is added to the product.

  Two things of a removed node still differ from prompt to prompt, unless the
  circuit is closed: with an attention sink, how much of its value is mixed, and
  which kept nodes of its site it outdoes in AbsTopK.

  Args:
    config: the model.
    params: its parameters, frozen ones (`models.frozen`) among them.
    edges: where the nonzero weights are, for matrices that have gates.
    gates: gates by site or matrix; what is absent stays untouched.
    values: what removed parts take, for every site concerned. Weights that
      read values mixed by attention take `{layer}.attn.y` where it is there,
      as it must be with attention sinks, see `sites.read_site`.
    slots: of frozen kernels, from `edge_slots`.
    closed: whether what is removed is constant wherever it is read: values take
      what `{layer}.attn.y` has in `values`, if anything, after attention has
      mixed them, and no removed node competes in AbsTopK.

  Returns:
    Parameters and edits for `GPT.apply`.
  """
  gates = {name: jnp.asarray(gate) for name, gate in gates.items()}
  edits = {}
  for site, gate in gates.items():
    if is_matrix(site):
      continue
    place = site
    if closed and mixed_site(site) in values:
      place = mixed_site(site)
    edits[place] = _blended(gate, values[place])
  for matrix in edge_matrices(config):
    if matrix.name not in gates:
      continue
    mixed = mixed_site(matrix.source)
    value = values[mixed if mixed in values else matrix.source]
    gate, where = gates[matrix.name], (slots or {}).get(matrix.name)
    if where is None:
      params, removed = _gate(matrix, params, edges[matrix.name], gate, value)
    else:
      params, removed = _gate_frozen(matrix, params, where, gate, value)
    edits[f'{matrix.target}.raw'] = lambda x, removed=removed: x + removed
  if closed:
    for site in gates.keys() & competing_sites(config).keys():
      raw = f'{site}.raw'
      edits[raw] = _outdone(gates[site], edits.get(raw))
  return params, edits


def _blended(gate, value):
  return lambda x: blend(gate, x, value)


def _outdone(gate, before):
  """Takes removed nodes out of the competition of AbsTopK."""
  # A gate gets its gradient where the value is taken, once.
  gate = jax.lax.stop_gradient(gate)
  return lambda x: (x if before is None else before(x)) * gate.astype(x.dtype)


def _gate(matrix, params, edges, gate, value):
  """Parameters with gated weights, and what the removed ones add."""
  block = matrix.block(params)
  rows, columns = edges
  kept = (
    jnp.zeros_like(block).at[rows, columns].set(block[rows, columns] * gate)
  )
  return matrix.replace_block(params, kept), value @ (block - kept)


def _gate_frozen(matrix, params, slots, gate, value):
  """The same for a kernel that holds its nonzero weights alone."""
  kernel = frozen.at(params, matrix.path)
  weights = kernel.value[slots]
  with_kept = kernel.value.at[slots].set(weights * gate)
  kept = dataclasses.replace(kernel, value=with_kept)
  removed = dataclasses.replace(kernel, value=kernel.value - with_kept)
  added = row_sparse_matmul(value, removed)[..., matrix.start : matrix.stop]
  return frozen.replace(params, matrix.path, kept), added


def edge_slots(config: GPTConfig, params: dict) -> EdgeSlots:
  """{matrix name: places of its weights in the values of a frozen kernel}.

  They stand in the order of `nonzero_weights`. Matrices with dense kernels are
  left out.
  """
  slots = {}
  for matrix in edge_matrices(config):
    kernel = frozen.at(params, matrix.path)
    if isinstance(kernel, RowSparse):
      slots[matrix.name] = _slots(matrix, kernel)
  return slots


def _slots(matrix: EdgeMatrix, kernel: RowSparse) -> Int[Array, '_']:
  columns = np.asarray(kernel.layout.by_input.index)
  own = (columns >= matrix.start) & (columns < matrix.stop)
  return jnp.asarray(np.asarray(kernel.layout.order)[own])


def nonzero_weights(
  config: GPTConfig, params: dict
) -> dict[str, Int[Array, '2 _']]:
  """{matrix name: rows and columns of its nonzero weights, by rows}."""
  return {
    matrix.name: jnp.asarray(
      np.stack(np.nonzero(np.asarray(matrix.block(params)))), jnp.int32
    )
    for matrix in edge_matrices(config)
  }
