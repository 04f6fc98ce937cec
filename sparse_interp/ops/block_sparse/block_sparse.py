"""Matrices most of whose square blocks are zero: layout, both orders, data.

A (K, N) matrix is cut into blocks of size x size; the last row and column of
blocks are filled up with zeros where size does not divide K or N. Kept blocks
lie in `capacity` slots, whatever their number, so that another layout has the
same shapes and nothing is compiled again. Everything here is jittable.

Products walk the blocks by block columns (x @ W) or by block rows (dy @ W^T):
both walks are worked out once, when the layout changes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


class Walk(NamedTuple):
  """Blocks in the order in which a product sums them.

  Every output block has at least one visit: an empty one has a visit that is
  not live, since what no visit writes is never written. Visits behind the last
  repeat it and are not live.

  Attributes:
    output: block index along the output, ascending; int32 (visits,).
    input: block index along the summed axis; int32 (visits,).
    slot: where the block lies; int32 (visits,).
    live: 1 where there is a block to multiply with; int32 (visits,).
    starts: first visit of each output block, and the end; int32 (outputs + 1,).
    counts: live visits of each output block; int32 (outputs,).
  """

  output: Int32[Array, ' visits']
  input: Int32[Array, ' visits']
  slot: Int32[Array, ' visits']
  live: Int32[Array, ' visits']
  starts: Int32[Array, ' bounds']
  counts: Int32[Array, ' outputs']


@dataclasses.dataclass(frozen=True, eq=False)
class BlockSparse:
  """A (K, N) matrix of which only some blocks are stored; a pytree.

  Attributes:
    blocks: data by slot, sorted by block column, then block row; slots from
      `count` on are zero. (capacity, size, size).
    rows: block row of each slot; int32 (capacity,).
    columns: block column of each slot; int32 (capacity,).
    count: slots in use; int32 scalar.
    by_column: visits for x @ W.
    by_row: visits for x @ W^T.
    shape: (K, N); static.
  """

  blocks: Float[Array, 'capacity size size']
  rows: Int32[Array, ' capacity']
  columns: Int32[Array, ' capacity']
  count: Int32[Array, '']
  by_column: Walk
  by_row: Walk
  shape: tuple[int, int]

  @property
  def size(self) -> int:
    """Rows and columns of a block."""
    return self.blocks.shape[-1]

  @property
  def capacity(self) -> int:
    """Blocks that can be stored."""
    return self.blocks.shape[-3]

  @property
  def grid(self) -> tuple[int, int]:
    """Block rows and block columns."""
    return block_grid(self.shape, self.size)

  def replace(self, blocks: Any) -> 'BlockSparse':
    """The same layout with other data."""
    return dataclasses.replace(self, blocks=blocks)


def _flatten(w: BlockSparse) -> tuple[tuple[Any, ...], tuple[int, int]]:
  leaves = (w.blocks, w.rows, w.columns, w.count, w.by_column, w.by_row)
  return leaves, w.shape


def _unflatten(shape: tuple[int, int], leaves: Any) -> BlockSparse:
  # jax puts things that are no arrays into trees, which __init__ refuses.
  w = object.__new__(BlockSparse)
  names = (field.name for field in dataclasses.fields(BlockSparse))
  for name, value in zip(names, (*leaves, shape), strict=True):
    object.__setattr__(w, name, value)
  return w


jax.tree_util.register_pytree_node(BlockSparse, _flatten, _unflatten)


def block_grid(shape: tuple[int, ...], size: int) -> tuple[int, int]:
  """Block rows and block columns of a matrix; the last ones may stick out."""
  return -(-shape[0] // size), -(-shape[1] // size)


def cut(matrix: Array, size: int) -> Array:
  """The blocks of a matrix, filled up with zeros at the end.

  Args:
    matrix: (K, N) of any dtype.
    size: rows and columns of a block.

  Returns:
    (block rows, block columns, size, size).
  """
  r, c = block_grid(matrix.shape, size)
  ends = ((0, r * size - matrix.shape[0]), (0, c * size - matrix.shape[1]))
  cut_rows = jnp.pad(matrix, ends).reshape(r, size, c, size)
  return cut_rows.swapaxes(1, 2)


def block_norms(
  matrix: Float[Array, 'K N'], size: int
) -> Float[Array, 'rows columns']:
  """Frobenius norm of every block, float32."""
  squares = jnp.square(cut(matrix, size).astype(jnp.float32))
  return jnp.sqrt(jnp.sum(squares, axis=(2, 3)))


def nonzero_blocks(
  matrix: Float[Array, 'K N'], size: int
) -> Bool[Array, 'rows columns']:
  """Marks blocks with any nonzero entry (NaN counts as one)."""
  return jnp.any(cut(matrix, size) != 0, axis=(2, 3))


def from_dense(
  matrix: Float[Array, 'K N'],
  size: int,
  capacity: int | None = None,
  kept: Bool[Array, 'rows columns'] | None = None,
) -> BlockSparse:
  """Stores the kept blocks of a matrix; differentiable in the matrix.

  Args:
    matrix: (K, N) floats.
    size: rows and columns of a block.
    capacity: blocks that can be stored, at least 1; None for all there are.
    kept: which blocks to keep; None for those that are not all zero.

  Returns:
    The kept blocks. Where there are more than `capacity` and that is only known
    at run time (under jit) all data is NaN: nothing is left out in silence.

  Raises:
    ValueError: size or capacity is too small.
  """
  if size < 1:
    raise ValueError(f'size must be at least 1, got {size}; choose e.g. 64.')
  r, c = block_grid(matrix.shape, size)
  capacity = r * c if capacity is None else min(capacity, r * c)
  if kept is None:
    kept = nonzero_blocks(matrix, size)
  count = jnp.sum(kept, dtype=jnp.int32)
  _check_capacity(capacity, count)
  # The slot of a kept block is its rank by columns. What finds no slot is left
  # out of the walks, too: they must not point beyond the data.
  rank = (jnp.cumsum(kept.T.reshape(-1)) - 1).astype(jnp.int32)
  rank = jnp.clip(rank.reshape(c, r).T, 0, None)
  kept = kept & (rank < capacity)
  # Flat indices ascend, so each list is sorted as its walk wants it.
  by_column = _indices(kept.T, capacity)
  by_row = _indices(kept, capacity)
  columns, rows = by_column // r, by_column % r
  used = jnp.arange(capacity) < count
  blocks = jnp.where(used[:, None, None], cut(matrix, size)[rows, columns], 0)
  blocks = jnp.where(count > capacity, jnp.nan, blocks).astype(matrix.dtype)
  slots = jnp.arange(capacity, dtype=jnp.int32)
  return BlockSparse(
    blocks=blocks,
    rows=rows,
    columns=columns,
    count=jnp.minimum(count, capacity),
    by_column=_walk(kept.sum(0, dtype=jnp.int32), slots, rows),
    by_row=_walk(
      kept.sum(1, dtype=jnp.int32), rank[by_row // c, by_row % c], by_row % c
    ),
    shape=(matrix.shape[0], matrix.shape[1]),
  )


def _indices(kept: Bool[Array, 'a b'], capacity: int) -> Int32[Array, ' slots']:
  """Flat indices of the marks, ascending; unused slots repeat block 0."""
  flat = kept.reshape(-1)
  return jnp.nonzero(flat, size=capacity, fill_value=0)[0].astype(jnp.int32)


def _check_capacity(capacity: int, count: Any) -> None:
  """Raises ValueError where it can be known that blocks do not fit."""
  if capacity < 1:
    raise ValueError(
      f'capacity must be at least 1 block, got {capacity}; choose the number '
      'of kept blocks or more.'
    )
  if not isinstance(count, jax.core.Tracer) and int(count) > capacity:
    raise ValueError(
      f'capacity must hold all kept blocks, got {capacity} for {int(count)}; '
      f'choose {int(count)} or more.'
    )


def _walk(
  counts: Int32[Array, ' outputs'],
  slots: Int32[Array, ' capacity'],
  inputs: Int32[Array, ' capacity'],
) -> Walk:
  """Visits to blocks listed by output block, with one for each empty output.

  Args:
    counts: blocks of each output block.
    slots: where the listed blocks lie.
    inputs: their block index along the summed axis.
  """
  capacity, outputs = slots.shape[0], counts.shape[0]
  zero = jnp.zeros(1, jnp.int32)
  ends = jnp.cumsum(jnp.maximum(counts, 1)).astype(jnp.int32)
  starts = jnp.concatenate([zero, ends])
  firsts = jnp.concatenate([zero, jnp.cumsum(counts).astype(jnp.int32)])
  visit = jnp.arange(capacity + outputs, dtype=jnp.int32)
  output = jnp.searchsorted(ends, visit, side='right').astype(jnp.int32)
  output = jnp.minimum(output, outputs - 1)
  nth = visit - starts[output]
  # A visit that is not live points to a block near by, which need not be moved
  # from memory once more.
  last = jnp.clip(firsts[-1], 1, capacity) - 1
  listed = jnp.clip(firsts[output] + nth, 0, last)
  return Walk(
    output=output,
    input=inputs[listed],
    slot=slots[listed],
    live=(nth < counts[output]).astype(jnp.int32),
    starts=starts,
    counts=counts,
  )


def to_dense(w: BlockSparse) -> Float[Array, 'K N']:
  """The (K, N) matrix with all its zeros."""
  r, c = w.grid
  empty = jnp.zeros((r, c, w.size, w.size), w.blocks.dtype)
  # Unused slots hold zeros, and are added to block (0, 0).
  blocks = empty.at[w.rows, w.columns].add(w.blocks)
  whole = blocks.swapaxes(1, 2).reshape(r * w.size, c * w.size)
  return whole[: w.shape[0], : w.shape[1]]


def occupancy(w: BlockSparse) -> Float[Array, '']:
  """Share of the blocks that are stored, in [0, 1]."""
  r, c = w.grid
  return w.count.astype(jnp.float32) / (r * c)
