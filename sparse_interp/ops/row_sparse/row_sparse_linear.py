"""A dense weight matrix with many zeros, multiplied as what it is.

What a layer in training calls: the weights stay a dense array, those that are
not zero are listed anew in every call, and where they are too many the product
is the dense one. A dense gradient lets a dropped weight return, and is the
default.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_interp.ops import machine
from sparse_interp.ops.row_sparse import (
  row_sparse,
  row_sparse_kernels,
  row_sparse_reference,
)
from sparse_interp.ops.thresholds import ROWS_DENSE_ABOVE

GRADIENTS = ('dense', 'kept')


def row_sparse_linear(
  x: Float[Array, '*batch K'],
  kernel: Float[Array, 'K N'],
  dense_above: float = ROWS_DENSE_ABOVE,
  gradient: str = 'dense',
  implementation: str = 'auto',
) -> Float[Array, '*batch N']:
  """x @ kernel, skipping zeros where that can pay.

  Args:
    x: activations, (..., K).
    kernel: weights, (K, N), with any share of zeros.
    dense_above: share of nonzero weights above which all are multiplied; in
      (0, 1].
    gradient: of the kernel: 'dense', or 'kept' for nonzero weights only.
    implementation: see `row_sparse_matmul`.

  Raises:
    ValueError: an argument is out of its range.
  """
  if not 0 < dense_above <= 1:
    raise ValueError(
      f'dense_above must be in (0, 1], got {dense_above}; choose e.g. '
      f'{ROWS_DENSE_ABOVE}.'
    )
  if gradient not in GRADIENTS:
    raise ValueError(
      f"gradient must be 'dense' or 'kept', got {gradient!r}; choose 'dense'."
    )
  implementation = machine.choose(implementation, row_sparse.IMPLEMENTATIONS)
  dtype = jnp.result_type(x.dtype, kernel.dtype)
  tokens = x.reshape(-1, x.shape[-1]).astype(dtype)
  static = (dense_above, gradient, implementation)
  y = _linear(static, tokens, kernel.astype(dtype))
  return y.reshape(*x.shape[:-1], kernel.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(static, x, kernel):
  return _linear_forward(static, x, kernel)[0]


def _linear_forward(static, x, kernel):
  value, rows, pays = _lists(static, kernel, 'output')
  y = lax.cond(
    pays,
    lambda: row_sparse.rows_product(static[2], value, rows, x),
    lambda: x @ kernel,
  )
  return y, (x, kernel)


def _linear_backward(static, saved, dy):
  _, gradient, implementation = static
  x, kernel = saved
  value, rows, pays = _lists(static, kernel, 'input')
  dx = lax.cond(
    pays,
    lambda: row_sparse.rows_product(implementation, value, rows, dy),
    lambda: dy @ kernel.T,
  )
  if gradient == 'dense':
    return dx, x.T @ dy
  few = row_sparse_reference.kept_gradient
  if implementation == 'cpu':
    few = row_sparse_kernels.kept_gradient
  dw = lax.cond(
    pays,
    lambda: few(x, dy, rows).astype(kernel.dtype),
    lambda: jnp.where(kernel != 0, x.T @ dy, 0),
  )
  return dx, dw


_linear.defvjp(_linear_forward, _linear_backward)


def _lists(static, kernel, by):
  """Values and places of nonzero weights, and whether they are few enough."""
  dense_above, _, implementation = static
  capacity = max(1, int(dense_above * kernel.size))
  gather = row_sparse_reference.gather
  if implementation == 'cpu':
    gather = row_sparse_kernels.gather
  value, rows, count = gather(kernel.astype(jnp.float32), capacity, by)
  return value, row_sparse.Rows(*rows), count <= capacity
