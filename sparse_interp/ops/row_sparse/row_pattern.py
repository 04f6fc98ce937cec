"""Single zeros of a dense matrix, skipped: a pattern for `sparse_linear`."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparse_interp.ops import machine
from sparse_interp.ops.row_sparse import (
  row_sparse,
  row_sparse_kernels,
  row_sparse_reference,
)
from sparse_interp.ops.sparse_linear import Found
from sparse_interp.ops.thresholds import ROWS_DENSE_ABOVE


@dataclasses.dataclass(frozen=True)
class RowPattern:
  """Weights that are not zero lie anywhere; see `sparse_linear.Pattern`.

  They are listed by output for the product, and by input, anew, for its
  gradient: a list costs about as much as reading the matrix.

  Attributes:
    dense_above: share of nonzero weights above which all are multiplied.
    implementation: see `row_sparse_matmul`.
  """

  dense_above: float = ROWS_DENSE_ABOVE
  implementation: str = 'auto'

  def chosen(self, dtype: jnp.dtype) -> 'RowPattern':
    """With 'auto' resolved; see `machine.choose` for what it raises."""
    del dtype
    chosen = machine.choose(self.implementation, row_sparse.IMPLEMENTATIONS)
    if not chosen.startswith('cpu'):
      chosen = 'reference'  # kernels for GPUs take lists made on the host
    return dataclasses.replace(self, implementation=chosen)

  def find(self, kernel: Float[Array, 'K N']) -> Found:
    """Lists the weights of every output."""
    return self._list(kernel, 'output')

  def saved(self, found: Found) -> None:
    """Nothing: the gradient needs other lists."""

  def find_again(self, kernel: Float[Array, 'K N'], saved: None) -> Found:
    """Lists the weights of every input."""
    return self._list(kernel, 'input')

  def product(self, layout: Any, x: Float[Array, 'tokens K']) -> Array:
    """x @ kernel."""
    return row_sparse.rows_product(self.implementation, *layout, x)

  def pull_x(self, layout: Any, dy: Float[Array, 'tokens N']) -> Array:
    """dy @ kernel.T."""
    return row_sparse.rows_product(self.implementation, *layout, dy)

  def pull_kernel(
    self,
    layout: Any,
    x: Float[Array, 'tokens K'],
    dy: Float[Array, 'tokens N'],
  ) -> Array:
    """x.T @ dy at the weights that are not zero."""
    return self._ways().kept_gradient(x, dy, layout[1])

  def held(self, kernel: Float[Array, 'K N']) -> Bool[Array, 'K N']:
    """The weights that are not zero."""
    return kernel != 0

  def _ways(self):
    on_a_cpu = self.implementation == 'cpu'
    return row_sparse_kernels if on_a_cpu else row_sparse_reference

  def _list(self, kernel, by):
    capacity = max(1, int(self.dense_above * kernel.size))
    value, rows, count = self._ways().gather(
      kernel.astype(jnp.float32), capacity, by
    )
    layout = value, row_sparse.Rows(*rows)
    return Found(layout, count <= capacity, count / max(1, kernel.size))
