"""x @ W for a block-sparse W, with its gradients, on CPU, GPU and TPU.

The forward product, dx and dW each cost what the kept blocks cost: dx walks the
same blocks by rows, and dW is summed for kept blocks only. No second derivative
and no forward mode: for those multiply with `block_sparse.to_dense(w)`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_interp.ops import machine
from sparse_interp.ops.block_sparse import block_sparse_xla as xla
from sparse_interp.ops.block_sparse.block_sparse import BlockSparse
from sparse_interp.ops.tuned import choice

# That for CPUs is plain jax, too, and no kernel.
IMPLEMENTATIONS = (
  'reference',
  'cpu',
  'gpu',
  'tpu',
  'gpu_interpreted',
  'tpu_interpreted',
)


def block_sparse_matmul(
  x: Float[Array, '*batch K'],
  w: BlockSparse,
  implementation: str = 'auto',
) -> Float[Array, '*batch N']:
  """Multiplies activations with a block-sparse matrix.

  Differentiable in x and in `w.blocks`; where blocks share no dtype with x,
  both are promoted first. Sums are in float32.

  Args:
    x: activations, (..., K).
    w: the matrix, (K, N).
    implementation: 'auto' or one of IMPLEMENTATIONS; see `choose_for_blocks`.

  Returns:
    (..., N), of the promoted dtype. Columns without a block are zero.

  Raises:
    ValueError: shapes differ, or the implementation does not take the size of
      the blocks or the dtype.
  """
  if x.shape[-1] != w.shape[0]:
    raise ValueError(
      f'x must be (..., {w.shape[0]}) for a matrix of {w.shape[0]} x '
      f'{w.shape[1]}, got {x.shape}; transpose or slice one of them.'
    )
  dtype = jnp.result_type(x.dtype, w.blocks.dtype)
  implementation = choose_for_blocks(implementation, w.size, dtype)
  flat = x.reshape(-1, x.shape[-1]).astype(dtype)
  flat = _widen(flat, w.grid[0] * w.size)
  layout = (w.rows, w.columns, w.count, w.by_column, w.by_row)
  y = _matmul(implementation, flat, w.blocks.astype(dtype), layout)
  return y[:, : w.shape[1]].reshape(*x.shape[:-1], w.shape[1])


def choose_for_blocks(implementation: str, size: int, dtype: Any) -> str:
  """The implementation meant, for these blocks if it is 'auto'.

  Kernels where they take the size and dtype: TPUs multiples of 128, Hopper 64
  and 128 in 16 bits, and there only where they are known to be faster. Else
  plain jax: block by block on a CPU, batched elsewhere.

  Raises:
    ValueError: there is no such implementation, or it does not take the size of
      the blocks or the dtype.
  """
  chosen = machine.choose(implementation, IMPLEMENTATIONS)
  refused = _refused(chosen, size, dtype)
  if implementation == 'auto' and chosen == 'gpu' and not refused:
    known = choice.best('block_sparse', block=size, dtype=jnp.dtype(dtype).name)
    refused = None if known else 'not known to be faster'
  if refused and implementation == 'auto':
    return 'reference'
  if refused:
    raise ValueError(refused)
  return chosen


def _refused(implementation: str, size: int, dtype: Any) -> str | None:
  """Why an implementation does not take the operands; None if it does."""
  if implementation in ('reference', 'cpu'):
    return None
  kernels, _ = _kernels(implementation)
  if implementation.startswith('tpu'):
    if size % kernels.LANES == 0:
      return None
    return (
      f'size must be a multiple of {kernels.LANES} for the TPU kernel, got '
      f"{size}; choose 128, or implementation='reference'."
    )
  if size in kernels.SIZES and dtype in kernels.DTYPES:
    return None
  return (
    'size and dtype must be 64 or 128 and 16-bit floats for the GPU kernel, '
    f"got {size} and {jnp.dtype(dtype)}; choose implementation='reference'."
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(name, x, blocks, layout):
  return _matmul_forward(name, x, blocks, layout)[0]


def _matmul_forward(name, x, blocks, layout):
  by_column = layout[3]
  y = product(name, x, blocks, by_column, transposed=False)
  return y, (x, blocks, layout)


def _matmul_backward(name, saved, dy):
  x, blocks, (rows, columns, count, _, by_row) = saved
  dx = product(name, dy, blocks, by_row, transposed=True)
  size = blocks.shape[-1]
  dblocks = sampled(name, x, dy, rows, columns, count, size)
  return dx, dblocks, None


_matmul.defvjp(_matmul_forward, _matmul_backward)


def product(name, x, blocks, walk, transposed):
  """x @ W (or W^T) by the named implementation; see `product_batched`."""
  match name:
    case 'reference':
      return xla.product_batched(x, blocks, walk, transposed)
    case 'cpu':
      return xla.product_looped(x, blocks, walk, transposed)
  kernels, interpret = _kernels(name)
  padded = _lengthen(x, kernels)
  y = kernels.product(padded, blocks, walk, transposed, interpret)
  return y[: x.shape[0]]


def sampled(name, x, dy, rows, columns, count, size):
  """Blocks of x^T @ dy by the named one; see `sampled_batched`."""
  match name:
    case 'reference':
      return xla.sampled_batched(x, dy, rows, columns, count, size)
    case 'cpu':
      return xla.sampled_looped(x, dy, rows, columns, count, size)
  kernels, interpret = _kernels(name)
  x, dy = (_lengthen(a, kernels) for a in (x, dy))
  return kernels.sampled(x, dy, rows, columns, count, size, interpret)


def _kernels(name: str) -> tuple[Any, Any]:
  """The module with the kernels, and how they are interpreted, if at all."""
  # Pallas for accelerators takes a second to import, and CPUs do without.
  from sparse_interp.ops import compat

  interpreted = name.endswith('_interpreted')
  if name.startswith('tpu'):
    from sparse_interp.ops.block_sparse import block_sparse_tpu

    return block_sparse_tpu, (
      compat.tpu_interpreter(checked=False) if interpreted else False
    )
  from sparse_interp.ops.block_sparse import block_sparse_gpu

  return block_sparse_gpu, compat.gpu_interpreter() if interpreted else None


def _widen(x: Array, width: int) -> Array:
  """Adds columns of zeros."""
  missing = width - x.shape[1]
  return jnp.pad(x, ((0, 0), (0, missing))) if missing else x


def _lengthen(x: Array, kernels: Any) -> Array:
  """Adds rows of zeros, as many as the kernels want."""
  missing = kernels.rows_padded(max(x.shape[0], 1)) - x.shape[0]
  return jnp.pad(x, ((0, missing), (0, 0))) if missing else x
