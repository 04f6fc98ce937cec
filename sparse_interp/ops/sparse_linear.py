"""A dense weight matrix with many zeros, multiplied as what it is.

What a layer in training calls: the weights stay a dense array, where they are
not zero is found anew in every call, and where too few are zero the product is
the dense one. A dense gradient lets a dropped weight return, and is the
default.
"""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

GRADIENTS = ('dense', 'kept')


class Found(NamedTuple):
  """Where the weights are not zero.

  Attributes:
    layout: what the products of the pattern take; of no use unless `pays`.
    pays: whether few enough are not zero (bool scalar).
    share: of weights, or blocks, that are not zero (float32 scalar).
  """

  layout: Any
  pays: Bool[Array, '']
  share: Float[Array, '']


@runtime_checkable
class Pattern(Protocol):
  """How the weights that are not zero lie, and products that skip the others.

  Hashable. `row_pattern.RowPattern` and `block_pattern.BlockPattern` are such.
  """

  @property
  def dense_above(self) -> float:
    """Share that is not zero above which all is multiplied; in (0, 1]."""
    ...

  def chosen(self, dtype: jnp.dtype) -> 'Pattern':
    """The same, with an implementation that can compute in this dtype."""
    ...

  def find(self, kernel: Float[Array, 'K N']) -> Found:
    """What `product` takes."""
    ...

  def saved(self, found: Found) -> Any:
    """What `find_again` needs of it."""
    ...

  def find_again(self, kernel: Float[Array, 'K N'], saved: Any) -> Found:
    """What `pull_x` and `pull_kernel` take."""
    ...

  def product(
    self, layout: Any, x: Float[Array, 'tokens K']
  ) -> Float[Array, 'tokens N']:
    """x @ kernel."""
    ...

  def pull_x(
    self, layout: Any, dy: Float[Array, 'tokens N']
  ) -> Float[Array, 'tokens K']:
    """dy @ kernel.T."""
    ...

  def pull_kernel(
    self,
    layout: Any,
    x: Float[Array, 'tokens K'],
    dy: Float[Array, 'tokens N'],
  ) -> Float[Array, 'K N']:
    """x.T @ dy at the weights that are `held`, 0 elsewhere."""
    ...

  def held(self, kernel: Float[Array, 'K N']) -> Bool[Array, 'K N']:
    """The weights that are not skipped."""
    ...


def sparse_linear(
  x: Float[Array, '*batch K'],
  kernel: Float[Array, 'K N'],
  pattern: Pattern,
  gradient: str = 'dense',
) -> tuple[Float[Array, '*batch N'], Float[Array, '']]:
  """x @ kernel, skipping zeros where that can pay.

  Args:
    x: activations, (..., K).
    kernel: weights, (K, N), with any share of zeros.
    pattern: how they lie: a RowPattern for any, a BlockPattern for blocks.
    gradient: of the kernel: 'dense', or 'kept' for what is not skipped only.

  Returns:
    (..., N), and the share of weights or blocks that are not zero (float32
    scalar, no gradient).

  Raises:
    ValueError: an argument is out of its range.
  """
  if not 0 < pattern.dense_above <= 1:
    raise ValueError(
      f'dense_above must be in (0, 1], got {pattern.dense_above}; choose e.g. '
      '0.25.'
    )
  if gradient not in GRADIENTS:
    raise ValueError(
      f"gradient must be 'dense' or 'kept', got {gradient!r}; choose 'dense'."
    )
  dtype = jnp.result_type(x.dtype, kernel.dtype)
  static = pattern.chosen(dtype), gradient
  tokens = x.reshape(-1, x.shape[-1]).astype(dtype)
  y, share = _linear(static, tokens, kernel.astype(dtype))
  return y.reshape(*x.shape[:-1], kernel.shape[1]), lax.stop_gradient(share)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(static, x, kernel):
  return _forward(static, x, kernel)[0]


def _forward(static, x, kernel):
  pattern, _ = static
  layout, pays, share = found = pattern.find(kernel)
  y = lax.cond(pays, lambda: pattern.product(layout, x), lambda: x @ kernel)
  return (y, share), (x, kernel, pattern.saved(found))


def _backward(static, residuals, cotangents):
  pattern, gradient = static
  x, kernel, saved = residuals
  dy, _ = cotangents
  layout, pays, _ = pattern.find_again(kernel, saved)
  dx = lax.cond(pays, lambda: pattern.pull_x(layout, dy), lambda: dy @ kernel.T)
  if gradient == 'dense':
    return dx, x.T @ dy
  dw = lax.cond(
    pays,
    lambda: pattern.pull_kernel(layout, x, dy).astype(kernel.dtype),
    lambda: jnp.where(pattern.held(kernel), x.T @ dy, 0),
  )
  return dx, dw


_linear.defvjp(_forward, _backward)
