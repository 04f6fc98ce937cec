"""How a layer multiplies with a matrix of weights that is held dense."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_interp.ops import machine
from sparse_interp.ops.block_sparse.block_pattern import BlockPattern
from sparse_interp.ops.row_sparse.row_pattern import RowPattern
from sparse_interp.ops.sparse_linear import sparse_linear
from sparse_interp.ops.thresholds import ROWS_DENSE_ABOVE


@dataclasses.dataclass(frozen=True)
class Products:
  """What products with the matrices of the layers may skip.

  The result is that of the dense product but for rounding, as long as no
  activation is infinite. Where too few weights are zero, all are multiplied.

  Attributes:
    block: skip square blocks of zeros of this side; None: none.
    skip_zeros: skip single zeros; not together with blocks.
    kept_gradient: where zeros are skipped, weights that are zero get the
      gradient 0 in the place of their own.
  """

  block: int | None = None
  skip_zeros: bool = False
  kept_gradient: bool = False


DENSE = Products()


def skipping_pays(density: float) -> bool:
  """Whether skipping single zeros is known to be faster on this machine.

  The lists of weights are made on one device. On accelerators nothing has been
  measured.
  """
  one_cpu = machine.of_this_machine() == 'cpu' and jax.device_count() == 1
  return one_cpu and density <= ROWS_DENSE_ABOVE


def multiply(
  products: Products,
  x: Float[Array, '*batch d_in'],
  kernel: Float[Array, 'd_in d_out'],
) -> tuple[Float[Array, '*batch d_out'], Float[Array, ''] | None]:
  """x @ kernel, and the share of blocks that are not zero, if there are any."""
  gradient = 'kept' if products.kept_gradient else 'dense'
  if products.block is not None:
    return sparse_linear(x, kernel, BlockPattern(products.block), gradient)
  if products.skip_zeros:
    return sparse_linear(x, kernel, RowPattern(), gradient)[0], None
  return token_product(x, kernel), None


def token_product(
  x: Float[Array, '*batch d_in'],
  kernel: Float[Array, 'd_in d_out'],
  *_,
  preferred_element_type: Any = None,
  **__,
) -> Float[Array, '*batch d_out']:
  """x @ kernel over all tokens as one matrix; a `dot_general` of `nn.Dense`.

  Of products with more axes XLA (CPU) makes a gradient of the kernel that first
  transposes the one of y: twice the time of forward and backward together.
  """
  y = jnp.matmul(
    x.reshape(-1, x.shape[-1]),
    kernel,
    preferred_element_type=preferred_element_type,
  )
  return y.reshape(*x.shape[:-1], -1)
