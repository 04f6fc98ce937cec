"""Products with block-sparse matrices on TPUs (Mosaic, scalar prefetch).

The walk is prefetched as scalars, so that the pipeline knows the next block
before the present one is done. Tiles of rows are the outer grid axis and visits
the inner one: visits to one output block follow one another, as a TPU asks of
an output that is written more than once.

Source: the pattern of the block-sparse tutorial of Pallas; sums, empty outputs
and unused slots are handled by the walk of `block_sparse` instead of by zeros
written beforehand.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import compat
from sparse_interp.ops.block_sparse.block_sparse import Walk

# Rows of activations per tile; fewer rows are one tile.
ROWS = 256
# The lanes of a TPU: blocks are multiples of this.
LANES = 128
# Rows come in packs of 16 (of 16-bit floats, or twice 8 of 32 bits).
_PACK = 16


def rows_padded(m: int) -> int:
  """Rows of activations that the kernels take in place of m."""
  step = ROWS if m > ROWS else _PACK
  return -(-m // step) * step


def product(
  x: Float[Array, 'M inputs'],
  blocks: Float[Array, 'capacity size size'],
  walk: Walk,
  transposed: bool,
  interpret: Any = False,
) -> Float[Array, 'M outputs']:
  """x @ W, or x @ W^T for `transposed` blocks; see `product_batched`.

  Args:
    x: activations; `rows_padded` rows, whole blocks wide.
    blocks: data by slot, of the dtype of x; size a multiple of 128.
    walk: visits ordered by output block.
    transposed: multiply with the transpose of each block.
    interpret: False, or what `compat.tpu_interpreter` returns.
  """
  m, size = x.shape[0], blocks.shape[-1]
  rows, visits = min(ROWS, m), walk.slot.shape[0]
  return pl.pallas_call(
    functools.partial(_product_body, transposed, visits),
    out_shape=jax.ShapeDtypeStruct((m, walk.counts.shape[0] * size), x.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(m // rows, visits),
      in_specs=[
        pl.BlockSpec((rows, size), lambda i, v, o, n, s, _: (i, n[v])),
        pl.BlockSpec((None, size, size), lambda i, v, o, n, s, _: (s[v], 0, 0)),
      ],
      out_specs=pl.BlockSpec((rows, size), lambda i, v, o, *_: (i, o[v])),
      scratch_shapes=[pltpu.VMEM((rows, size), jnp.float32)],
    ),
    compiler_params=compat.tpu_params(('parallel', 'arbitrary')),
    interpret=interpret,
    name='block_sparse_product',
  )(walk.output, walk.input, walk.slot, walk.live, x, blocks)


def _product_body(
  transposed, visits, output, _, __, live, x_ref, block_ref, y_ref, sums
):
  visit = pl.program_id(1)
  here = output[visit]

  @pl.when((visit == 0) | (output[jnp.maximum(visit - 1, 0)] != here))
  def _():
    sums[...] = jnp.zeros_like(sums)

  @pl.when(live[visit] > 0)
  def _():
    sums[...] += _dot(x_ref[...], block_ref[...], 1, 1 if transposed else 0)

  following = output[jnp.minimum(visit + 1, visits - 1)]

  @pl.when((visit == visits - 1) | (following != here))
  def _():
    y_ref[...] = sums[...].astype(y_ref.dtype)


def sampled(
  x: Float[Array, 'M inputs'],
  dy: Float[Array, 'M outputs'],
  rows: Int32[Array, ' capacity'],
  columns: Int32[Array, ' capacity'],
  count: Int32[Array, ''],
  size: int,
  interpret: Any = False,
) -> Float[Array, 'capacity size size']:
  """The blocks of x^T @ dy that have a slot; see `sampled_batched`.

  Args:
    x: activations; `rows_padded` rows, whole blocks wide.
    dy: gradients of the product, of the dtype of x.
    rows: block column of x for each slot.
    columns: block column of dy for each slot.
    count: slots in use; the others come out as zeros.
    size: rows and columns of a block, a multiple of 128.
    interpret: False, or what `compat.tpu_interpreter` returns.
  """
  capacity, m = rows.shape[0], x.shape[0]
  tile = min(ROWS, m)

  # For a slot that is not in use nothing new is fetched.
  def at_row(s, i, rows, _, count):
    return jnp.where(s < count[0], i, 0), rows[s]

  def at_column(s, i, _, columns, count):
    return jnp.where(s < count[0], i, 0), columns[s]

  return pl.pallas_call(
    functools.partial(_sampled_body, m // tile),
    out_shape=jax.ShapeDtypeStruct((capacity, size, size), x.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(capacity, m // tile),
      in_specs=[
        pl.BlockSpec((tile, size), at_row),
        pl.BlockSpec((tile, size), at_column),
      ],
      out_specs=pl.BlockSpec((None, size, size), lambda s, i, *_: (s, 0, 0)),
      scratch_shapes=[pltpu.VMEM((size, size), jnp.float32)],
    ),
    compiler_params=compat.tpu_params(('parallel', 'arbitrary')),
    interpret=interpret,
    name='block_sparse_sampled',
  )(rows, columns, count.reshape(1), x, dy)


def _sampled_body(tiles, _, __, count, x_ref, dy_ref, block_ref, sums):
  slot, tile = pl.program_id(0), pl.program_id(1)

  @pl.when(tile == 0)
  def _():
    sums[...] = jnp.zeros_like(sums)

  @pl.when(slot < count[0])
  def _():
    sums[...] += _dot(x_ref[...], dy_ref[...], 0, 0)

  @pl.when(tile == tiles - 1)
  def _():
    block_ref[...] = sums[...].astype(block_ref.dtype)


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  axes = (((a_axis,), (b_axis,)), ((), ()))
  return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)
