"""Products with block-sparse matrices on Hopper GPUs (Mosaic GPU).

One thread block per multiprocessor takes output tiles in turn, those with the
most blocks first. A pipeline brings 64 summed channels a step into shared
memory, for as many steps as the output has blocks, and the tensor cores sum in
float32. The walk is read from global memory by the pipeline's index maps, which
is what a GPU has in place of scalar prefetch.

Not timed on a GPU yet.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import compat
from sparse_interp.ops.block_sparse.block_sparse import Walk

# Rows of activations per tile.
ROWS = 128
# Sizes of blocks and dtypes that the tensor cores take.
SIZES = (64, 128)
DTYPES = (jnp.bfloat16, jnp.float16)
# Summed channels per step: 128 bytes of 16-bit floats, the widest swizzle.
_CHANNELS = 64
_STAGES = 4


def rows_padded(m: int) -> int:
  """Rows of activations that the kernels take in place of m."""
  return -(-m // ROWS) * ROWS


def product(
  x: Float[Array, 'M inputs'],
  blocks: Float[Array, 'capacity size size'],
  walk: Walk,
  transposed: bool,
  interpret: Any = None,
) -> Float[Array, 'M outputs']:
  """x @ W, or x @ W^T for `transposed` blocks; see `product_batched`.

  Args:
    x: activations, 16-bit; `rows_padded` rows, whole blocks wide.
    blocks: data by slot, of the dtype of x; size 64 or 128.
    walk: visits ordered by output block.
    transposed: multiply with the transpose of each block.
    interpret: None, or what `compat.gpu_interpreter` returns.
  """
  capacity, size = blocks.shape[0], blocks.shape[-1]
  outputs, tiles = walk.counts.shape[0], x.shape[0] // ROWS
  if transposed and not _transposes(interpret):
    blocks, transposed = blocks.swapaxes(1, 2), False
  chunks = size // _CHANNELS

  def body(
    order_ref,
    inputs_ref,
    slots_ref,
    starts_ref,
    counts_ref,
    x_ref,
    w_ref,
    y_ref,
    y_smem,
  ):
    @plgpu.nd_loop((outputs * tiles,), collective_axes='sm')
    def _(loop):
      (index,) = loop.index
      output, tile = order_ref[lax.div(index, tiles)], lax.rem(index, tiles)
      start, count = starts_ref[output], counts_ref[output]

      def x_at(step):
        visit = start + lax.div(step, chunks)
        return tile, inputs_ref[visit] * chunks + lax.rem(step, chunks)

      def w_at(step):
        slot = slots_ref[start + lax.div(step, chunks)]
        chunk = lax.rem(step, chunks)
        return (slot, chunk) if transposed else (slot * chunks + chunk, 0)

      w_block = (size, _CHANNELS) if transposed else (_CHANNELS, size)
      sums = _sum(
        (ROWS, size),
        count > 0,
        (count * chunks,),
        (False, transposed),
        (_spec((ROWS, _CHANNELS), x_at), _spec(w_block, w_at)),
        (x_ref, w_ref),
      )
      _store(
        sums,
        y_smem,
        y_ref.at[pl.ds(tile * ROWS, ROWS), pl.ds(output * size, size)],
      )

  return compat.gpu_kernel(
    body,
    out_type=jax.ShapeDtypeStruct((x.shape[0], outputs * size), x.dtype),
    scratch_types=(plgpu.SMEM((ROWS, size), x.dtype),),
    grid=_grid(outputs * tiles, interpret),
    grid_names=('sm',),
    interpret=interpret,
  )(
    jnp.argsort(-walk.counts).astype(jnp.int32),
    walk.input,
    walk.slot,
    walk.starts,
    walk.counts,
    x,
    blocks.reshape(capacity * size, size),
  )


def sampled(
  x: Float[Array, 'M inputs'],
  dy: Float[Array, 'M outputs'],
  rows: Int32[Array, ' capacity'],
  columns: Int32[Array, ' capacity'],
  count: Int32[Array, ''],
  size: int,
  interpret: Any = None,
) -> Float[Array, 'capacity size size']:
  """The blocks of x^T @ dy that have a slot; see `sampled_batched`.

  Args:
    x: activations, 16-bit; `rows_padded` rows, whole blocks wide.
    dy: gradients of the product, of the dtype of x.
    rows: block column of x for each slot.
    columns: block column of dy for each slot.
    count: slots in use; the others come out as zeros.
    size: rows and columns of a block, 64 or 128.
    interpret: None, or what `compat.gpu_interpreter` returns.
  """
  capacity, steps = rows.shape[0], x.shape[0] // _CHANNELS
  turned = not _transposes(interpret)

  def body(rows_ref, columns_ref, count_ref, x_ref, dy_ref, out_ref, out_smem):
    @plgpu.nd_loop((capacity,), collective_axes='sm')
    def _(loop):
      (slot,) = loop.index
      row, column = rows_ref[slot], columns_ref[slot]
      x_spec = (
        _spec((size, _CHANNELS), lambda i: (row, i))
        if turned
        else _spec((_CHANNELS, size), lambda i: (i, row))
      )
      dy_spec = _spec((_CHANNELS, size), lambda i: (i, column))
      used = slot < count_ref[0]
      sums = _sum(
        (size, size),
        used,
        (steps,),
        (not turned, False),
        (x_spec, dy_spec),
        (x_ref, dy_ref),
      )
      _store(sums, out_smem, out_ref.at[pl.ds(slot * size, size), :])

  blocks = compat.gpu_kernel(
    body,
    out_type=jax.ShapeDtypeStruct((capacity * size, size), x.dtype),
    scratch_types=(plgpu.SMEM((size, size), x.dtype),),
    grid=_grid(capacity, interpret),
    grid_names=('sm',),
    interpret=interpret,
  )(rows, columns, count.reshape(1), x.T if turned else x, dy)
  return blocks.reshape(capacity, size, size)


def _transposes(interpret: Any) -> bool:
  """Whether an operand can be a transposed view of shared memory."""
  return interpret is None or compat.GPU_INTERPRETER_TRANSPOSES


def _grid(tiles: int, interpret: Any) -> tuple[int, ...]:
  """Thread blocks; an interpreted kernel shows with 2 that they share work."""
  return compat.persistent_grid(tiles) if interpret is None else (2,)


def _spec(shape: tuple[int, int], index_map: Any) -> plgpu.BlockSpec:
  # A product may still read its operands while the next step is under way.
  return plgpu.BlockSpec(shape, index_map, delay_release=1)


def _sum(
  shape: tuple[int, int],
  any_step: Any,
  grid: tuple[Any],
  turn: tuple[bool, bool],
  specs: tuple[plgpu.BlockSpec, plgpu.BlockSpec],
  refs: tuple[Any, Any],
) -> Array:
  """Sums the products of all steps; zeros where there is no step.

  Args:
    shape: of the sum.
    any_step: whether there is a step.
    grid: steps, which need not be known when this is compiled.
    turn: which operands are transposed in shared memory.
    specs: where the operands of a step lie.
    refs: the operands in global memory.
  """

  def scope(sums):
    def multiply(_, *operands):
      a, b = (
        compat.transpose_ref(operand) if turned else operand
        for operand, turned in zip(operands, turn, strict=True)
      )
      plgpu.wgmma(sums, a, b)

    @pl.when(any_step)
    def _():
      plgpu.emit_pipeline(
        multiply, grid=grid, in_specs=specs, max_concurrent_steps=_STAGES
      )(*refs)

    return sums[...]

  return pl.run_scoped(scope, plgpu.ACC(shape, jnp.float32))


def _store(sums, smem, gmem_ref) -> None:
  smem[...] = sums.astype(smem.dtype)
  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(smem, gmem_ref)
  plgpu.wait_smem_to_gmem(0, wait_read_only=True)
