"""A dense weight matrix with zero blocks, multiplied as what it is.

What a layer in training calls: the weights stay a dense array, the layout is
found anew in every call, and where too few blocks are empty the product is the
dense one. A dense gradient lets a dropped block return, and is the default.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_interp.ops.block_sparse import block_sparse, block_sparse_matmul
from sparse_interp.ops.thresholds import BLOCKS_DENSE_ABOVE

GRADIENTS = ('dense', 'kept')


def block_sparse_linear(
  x: Float[Array, '*batch K'],
  kernel: Float[Array, 'K N'],
  size: int,
  dense_above: float = BLOCKS_DENSE_ABOVE,
  gradient: str = 'dense',
  implementation: str = 'auto',
) -> tuple[Float[Array, '*batch N'], Float[Array, '']]:
  """x @ kernel, skipping blocks of zeros where that can pay.

  Args:
    x: activations, (..., K).
    kernel: weights, (K, N), of any share of zero blocks.
    size: rows and columns of a block.
    dense_above: share of kept blocks above which all is multiplied; in (0, 1].
    gradient: of the kernel: 'dense', or 'kept' for blocks with a nonzero only.
    implementation: see `block_sparse_matmul`.

  Returns:
    (..., N), and the share of blocks that are not all zero (float32 scalar, no
    gradient).

  Raises:
    ValueError: an argument is out of its range.
  """
  if not 0 < dense_above <= 1:
    raise ValueError(
      f'dense_above must be in (0, 1], got {dense_above}; choose e.g. '
      f'{BLOCKS_DENSE_ABOVE}.'
    )
  if gradient not in GRADIENTS:
    raise ValueError(
      f"gradient must be 'dense' or 'kept', got {gradient!r}; choose 'dense'."
    )
  dtype = jnp.result_type(x.dtype, kernel.dtype)
  implementation = block_sparse_matmul.choose_for_blocks(
    implementation, size, dtype
  )
  x, kernel = x.astype(dtype), kernel.astype(dtype)
  kept = block_sparse.nonzero_blocks(lax.stop_gradient(kernel), size)
  pays = jnp.sum(kept) <= _most_blocks(size, dense_above, kernel)
  y = _linear((size, dense_above, gradient, implementation), x, kernel, pays)
  return y, jnp.mean(kept, dtype=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(static, x, kernel, pays):
  return _linear_forward(static, x, kernel, pays)[0]


def _linear_forward(static, x, kernel, pays):
  size, dense_above, _, implementation = static
  w = _layout(size, dense_above, kernel, pays)

  def skip():
    return block_sparse_matmul.block_sparse_matmul(x, w, implementation)

  return lax.cond(pays, skip, lambda: x @ kernel), (x, kernel, pays, w)


def _linear_backward(static, saved, dy):
  _, _, gradient, implementation = static
  x, kernel, pays, w = saved

  def blocks_of(x, blocks):
    return block_sparse_matmul.block_sparse_matmul(
      x, w.replace(blocks), implementation
    )

  def skip_dx():
    return jax.vjp(lambda x: blocks_of(x, w.blocks), x)[1](dy)[0]

  dx = lax.cond(pays, skip_dx, lambda: dy @ kernel.T)

  def whole():
    rows = x.reshape(-1, x.shape[-1])
    return rows.T @ dy.reshape(-1, dy.shape[-1])

  if gradient == 'dense':
    return dx, whole(), None

  def skip_dw():
    blocks = jax.vjp(lambda blocks: blocks_of(x, blocks), w.blocks)[1](dy)[0]
    return block_sparse.to_dense(w.replace(blocks))

  kept = block_sparse.nonzero_blocks(kernel, w.size)
  entries = jnp.repeat(jnp.repeat(kept, w.size, 0), w.size, 1)
  entries = entries[: w.shape[0], : w.shape[1]]
  masked = functools.partial(jnp.where, entries)
  return dx, lax.cond(pays, skip_dw, lambda: masked(whole(), 0)), None


_linear.defvjp(_linear_forward, _linear_backward)


def _most_blocks(size, dense_above, kernel):
  """Kept blocks with which skipping still pays."""
  r, c = block_sparse.block_grid(kernel.shape, size)
  return int(dense_above * r * c)


def _layout(size, dense_above, kernel, pays):
  """The kept blocks, or none of them where they are not going to be used."""
  kept = block_sparse.nonzero_blocks(kernel, size) & pays
  capacity = max(1, _most_blocks(size, dense_above, kernel))
  return block_sparse.from_dense(kernel, size, capacity, kept)
