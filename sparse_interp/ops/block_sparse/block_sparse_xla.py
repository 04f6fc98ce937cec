"""Products with block-sparse matrices in plain jax, two ways.

`batched` gathers the input of every slot and makes one batched product, for all
devices; `looped` visits one block after the other, as many as
there are and not as many as would fit, with slices that stay in the caches of a
CPU. Both sum in float32.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from sparse_interp.ops.block_sparse.block_sparse import Walk

_F32 = jnp.float32


def _split(
  x: Float[Array, 'M width'], size: int
) -> Float[Array, 'blocks M size']:
  """Block columns of activations, each contiguous."""
  return x.reshape(x.shape[0], x.shape[1] // size, size).swapaxes(0, 1)


def _join(x: Float[Array, 'blocks M size']) -> Float[Array, 'M width']:
  return x.swapaxes(0, 1).reshape(x.shape[1], x.shape[0] * x.shape[2])


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
  """Product of two matrices (or stacks of them) summed in float32."""
  n = a.ndim - 2
  batch = tuple(range(n))
  axes = ((contract[0] + n,), (contract[1] + n,))
  return lax.dot_general(
    a, b, (axes, (batch, batch)), preferred_element_type=_F32
  )


def product_batched(
  x: Float[Array, 'M inputs'],
  blocks: Float[Array, 'capacity size size'],
  walk: Walk,
  transposed: bool,
) -> Float[Array, 'M outputs']:
  """x @ W, or x @ W^T for `transposed` blocks.

  One product for every visit, and a sum of neighbours.

  Args:
    x: activations, whole blocks wide.
    blocks: data by slot.
    walk: visits ordered by output block.
    transposed: multiply with the transpose of each block.

  Returns:
    In the dtype of x; so do all products here.
  """
  inputs = _split(x, blocks.shape[-1])[walk.input]
  parts = _dot(inputs, blocks[walk.slot], (1, 1 if transposed else 0))
  parts = jnp.where(walk.live[:, None, None] > 0, parts, 0)
  sums = jax.ops.segment_sum(
    parts,
    walk.output,
    num_segments=walk.counts.shape[0],
    indices_are_sorted=True,
  )
  return _join(sums.astype(x.dtype))


def product_looped(
  x: Float[Array, 'M inputs'],
  blocks: Float[Array, 'capacity size size'],
  walk: Walk,
  transposed: bool,
) -> Float[Array, 'M outputs']:
  """The same block after block, by output blocks."""
  inputs, size = _split(x, blocks.shape[-1]), blocks.shape[-1]

  def one_output(n):
    def add(visit, total):
      block = blocks[walk.slot[visit]]
      part = _dot(inputs[walk.input[visit]], block, (1, 1 if transposed else 0))
      return total + part

    start = walk.starts[n]
    total = jnp.zeros((x.shape[0], size), _F32)
    total = lax.fori_loop(start, start + walk.counts[n], add, total)
    return total.astype(x.dtype)

  return _join(lax.map(one_output, jnp.arange(walk.counts.shape[0])))


def sampled_batched(
  x: Float[Array, 'M inputs'],
  dy: Float[Array, 'M outputs'],
  rows: Int32[Array, ' capacity'],
  columns: Int32[Array, ' capacity'],
  count: Int32[Array, ''],
  size: int,
) -> Float[Array, 'capacity size size']:
  """The blocks of x^T @ dy that have a slot, by one product for every slot.

  Args:
    x: activations, whole blocks wide.
    dy: gradients of the product, whole blocks wide, of the dtype of x.
    rows: block column of x for each slot.
    columns: block column of dy for each slot.
    count: slots in use; the others come out as zeros.
    size: rows and columns of a block.

  Returns:
    In the dtype of x; so do all sampled products here.
  """
  blocks = _dot(_split(x, size)[rows], _split(dy, size)[columns], (0, 0))
  return jnp.where(_used(rows, count), blocks, 0).astype(x.dtype)


def sampled_looped(
  x: Float[Array, 'M inputs'],
  dy: Float[Array, 'M outputs'],
  rows: Int32[Array, ' capacity'],
  columns: Int32[Array, ' capacity'],
  count: Int32[Array, ''],
  size: int,
) -> Float[Array, 'capacity size size']:
  """The same slot after slot, the used ones only."""
  left, right = _split(x, size), _split(dy, size)

  def one_slot(slot, blocks):
    block = _dot(left[rows[slot]], right[columns[slot]], (0, 0))
    return blocks.at[slot].set(block.astype(x.dtype))

  blocks = jnp.zeros((rows.shape[0], size, size), x.dtype)
  return lax.fori_loop(0, count, one_slot, blocks)


def _used(rows: Array, count: Array) -> Array:
  return (jnp.arange(rows.shape[0]) < count)[:, None, None]
