"""Products with sparse rows on a Hopper GPU, on its ordinary cores.

One weight multiplies one row of activations. Read from the L2 cache these rows
bound the kernel at a density near 1 in 100; from shared memory the bound lies
about four times higher. So a block of threads stages the activations of its
tokens, as many channels at a time as fit, and walks the weights of its output
channels: a thread owns tokens, all threads take the same weight, and rows of
different lengths diverge nowhere.

It has been lowered and interpreted, and not yet run on a GPU.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import compat
from sparse_interp.ops.row_sparse import row_sparse_reference as reference

# Tokens of a block: two for each of its 128 threads, as wide as the unit that
# moves the activations allows.
_TOKENS = 256

# Output channels of a block; their sums are in shared memory, too.
_CHANNELS = 32

# Shared memory for the activations that are staged, of 227 KiB.
_STAGED_BYTES = 128 * 1024


def product(
  value: Float[Array, 'entries'],
  rows: Any,
  x_t: Float[Array, 'inputs tokens'],
  interpret: bool = False,
) -> Float[Array, 'rows tokens']:
  """Rows of weights times x_t; float32 sums, in the dtype of x_t.

  Args:
    value: weights, row after row.
    rows: `row_sparse.Rows`, where they are.
    x_t: float32 or bfloat16.
    interpret: run on a CPU, memory checked.
  """
  count, tokens = rows.start.size - 1, x_t.shape[1]
  staged = _STAGED_BYTES // (_TOKENS * x_t.dtype.itemsize)
  # Padded, so that no block reaches beyond an array.
  x_t = jnp.pad(x_t, ((0, -x_t.shape[0] % staged), (0, -tokens % _TOKENS)))
  bounds = _bounds(rows, staged, x_t.shape[0] // staged)
  bounds = jnp.pad(bounds, ((0, 0), (0, -count % _CHANNELS)))
  shape = (bounds.shape[1], x_t.shape[1])
  kernel = compat.gpu_kernel(
    _kernel,
    out_type=jax.ShapeDtypeStruct(shape, x_t.dtype),
    # Blocks that run together read the same activations.
    grid=(shape[1] // _TOKENS, shape[0] // _CHANNELS),
    grid_names=('tokens', 'channels'),
    scratch_types=[
      plgpu.SMEM((staged, _TOKENS), x_t.dtype),
      plgpu.SMEM((_CHANNELS, _TOKENS), jnp.float32),
      plgpu.SMEM((_CHANNELS, _TOKENS), x_t.dtype),
      plgpu.Barrier(),
    ],
    interpret=compat.gpu_interpreter() if interpret else None,
  )
  y_t = kernel(x_t, value.astype(jnp.float32), rows.index, bounds)
  return y_t[:count, :tokens]


def _bounds(rows: Any, staged: int, stages: int) -> Int32[Array, 'bounds rows']:
  """Where the weights of each row begin that read each stage, and the end.

  Inputs ascend within a row, so each stage has a run of weights. What is
  padded is 0 on both sides: no weights.
  """
  count = rows.start.size - 1
  row = reference.channels(rows)
  in_stage = jnp.zeros((count, stages), jnp.int32)
  in_stage = in_stage.at[row, rows.index // staged].add(1)
  ends = rows.start[:-1, None] + jnp.cumsum(in_stage, axis=1)
  return jnp.concatenate([rows.start[:-1, None], ends], axis=1).T


def _kernel(x_t, value, index, bounds, y_t, staged, sums, out, arrived):
  first_token = lax.axis_index('tokens') * _TOKENS
  first_row = lax.axis_index('channels') * _CHANNELS
  size = staged.shape[0]
  mine = pl.ds(first_token, _TOKENS)
  zero = jnp.zeros((_TOKENS,), jnp.float32)

  @pl.loop(0, _CHANNELS)
  def _clear(row):
    sums[row] = zero

  @pl.loop(0, bounds.shape[0] - 1)
  def _stage(stage):
    # Only what all threads have read may be overwritten.
    plgpu.commit_smem()
    plgpu.copy_gmem_to_smem(
      x_t.at[pl.ds(stage * size, size), mine], staged, arrived
    )
    plgpu.barrier_wait(arrived)

    @pl.loop(0, _CHANNELS)
    def _row(row):
      def add(entry, total):
        read = staged[index[entry] - stage * size].astype(jnp.float32)
        return total + value[entry] * read

      begin, end = (bounds[stage + i, first_row + row] for i in (0, 1))
      sums[row] = lax.fori_loop(begin, end, add, sums[row])

  @pl.loop(0, _CHANNELS)
  def _narrow(row):
    out[row] = sums[row].astype(out.dtype)

  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(out, y_t.at[pl.ds(first_row, _CHANNELS), mine])
  plgpu.wait_smem_to_gmem(0)
