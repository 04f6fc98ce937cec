"""The kernels of sparse rows on a CPU: dtypes, batches, and their proofs.

Activations are token-major. Lists of weights may have room left: what follows
the listed ones is undefined, and nothing here reads it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import thresholds
from sparse_interp.ops.cpu_kernels import proving
from sparse_interp.ops.row_sparse import row_sparse_reference as reference


def _matrix(value, index, start, inputs):
  """(rows, inputs) of the listed values; nothing of what follows them."""
  channel = reference.listed_channels(index, start)
  zeros = jnp.zeros((start.size - 1, inputs), value.dtype)
  return zeros.at[channel, index].set(value, mode='drop')


def _plain_product(value, index, start, x):
  held = _matrix(jnp.ones_like(value), index, start, x.shape[1])
  # What no weight reads changes nothing, even if it is not a number.
  x = jnp.where(jnp.any(held != 0, axis=0), x, 0)
  return x @ _matrix(value, index, start, x.shape[1]).T


def _plain_sampled(index, start, x, dy):
  channel = reference.listed_channels(index, start)
  return jnp.matmul(dy.T, x)[channel, index]


def _plain_kept_gradient(index, start, x, dy):
  ones = jnp.ones(index.shape, jnp.float32)
  held = _matrix(ones, index, start, dy.shape[1])
  return jnp.where(held != 0, x.T @ dy, 0)


def _plain_lists(by):
  def plain(matrix, capacity):
    value, (index, start), count = reference.gather(matrix, capacity, by)
    return value, index, start, count

  return plain


def _listed(results):
  """Lists without what follows the listed weights."""
  value, index, start, count = results
  is_listed = np.arange(index.size) < start[-1]
  value, index = (np.where(is_listed, x, 0) for x in (value, index))
  return value, index, start, count


def _products():
  from sparse_interp.ops.row_sparse import row_sparse_cpu

  return row_sparse_cpu


def _lists():
  from sparse_interp.ops.row_sparse import row_sparse_lists

  return row_sparse_lists


def _sparse(seed, shape, density):
  """A matrix with an empty row, an empty column and zeros of both signs."""
  rng = np.random.default_rng(seed)
  matrix = rng.normal(size=shape) * (rng.random(shape) < density)
  matrix[shape[0] // 2], matrix[:, shape[1] // 3] = -0.0, 0
  return matrix.astype(np.float32)


_SHAPE, _DENSITY, _TOKENS = (203, 777), 1 / 40, 301


def _list_cases():
  """One with more weights than are listed, and one with room left."""
  many, few = (_sparse(0, _SHAPE, n * _DENSITY) for n in (2, 1))
  few[5, 40] = np.nan
  room = int(np.count_nonzero(few)) + 9
  return [(many, room), (few, room)]


def _case(by, room=5):
  """(value, index, start, x, dy) of the rows of a matrix."""
  matrix = _sparse(1, _SHAPE, _DENSITY)
  matrix = matrix.T if by == 'output' else matrix
  row, index = np.nonzero(matrix)
  start = np.searchsorted(row, np.arange(len(matrix) + 1))
  value = np.pad(matrix[row, index], (0, room), constant_values=np.nan)
  index = np.pad(index, (0, room), constant_values=2**30)
  rng = np.random.default_rng(2)
  sides = (matrix.shape[1], len(matrix))
  x, dy = (rng.normal(size=(_TOKENS, n)).astype(np.float32) for n in sides)
  return value, *(a.astype(np.int32) for a in (index, start)), x, dy


def _product_cases():
  *weights, x, _ = _case('output')
  x[:, _SHAPE[0] // 2] = np.nan  # which no weight reads
  return [(*weights, x)]


def _sampled_cases():
  return [_case('output', room=0)[1:]]


def _kept_gradient_cases():
  """Of rows by input, which read dy and are multiplied with x."""
  _, index, start, dy, x = _case('input')
  return [(index, start, x, dy)]


PRODUCT = proving.NativeKernel(
  'row_sparse_product',
  lambda: (_products().row_sparse_product, _products().product),
  _plain_product,
  _product_cases,
  1e-5,
)
SAMPLED = proving.NativeKernel(
  'row_sparse_sampled',
  lambda: (_products().row_sparse_sampled, _products().sampled),
  _plain_sampled,
  _sampled_cases,
  1e-5,
)
KEPT_GRADIENT = proving.NativeKernel(
  'row_sparse_kept_gradient',
  lambda: (_products().row_sparse_kept_gradient, _products().kept_gradient),
  _plain_kept_gradient,
  _kept_gradient_cases,
  1e-5,
)
BY_INPUT = proving.NativeKernel(
  'rows_by_input',
  lambda: (_lists().rows_by_input, _lists().by_input),
  _plain_lists('input'),
  _list_cases,
  defined=_listed,
)
BY_OUTPUT = proving.NativeKernel(
  'rows_by_output',
  lambda: (_lists().rows_by_output, _lists().by_output),
  _plain_lists('output'),
  _list_cases,
  defined=_listed,
)

_call_product = proving.either(PRODUCT)
_call_sampled = proving.either(SAMPLED)
_call_kept_gradient = proving.either(KEPT_GRADIENT)
_LISTS = {
  'input': proving.either(BY_INPUT),
  'output': proving.either(BY_OUTPUT),
}


def product(
  value: Float[Array, 'entries'], rows: Any, x: Float[Array, 'tokens inputs']
) -> Float[Array, 'tokens rows']:
  """x times rows of weights; float32 sums, in the dtype of x."""
  x32 = x.astype(jnp.float32)
  wide = (value.astype(jnp.float32), rows.index, rows.start, x32)
  return _product(*wide).astype(x.dtype)


_product = custom_vmap(_call_product)


@_product.def_vmap
def _batch_of_products(axis_size, batched, *arguments):
  """A batch of activations alone is more tokens."""
  if list(batched) == [False, False, False, True]:
    *weights, x = arguments
    y = _product(*weights, x.reshape(-1, x.shape[-1]))
    return y.reshape(axis_size, x.shape[1], -1), True
  axes = [0 if is_batched else None for is_batched in batched]
  return jax.vmap(_call_product, axes)(*arguments), True


def sampled(
  x: Float[Array, 'tokens inputs'], dy: Float[Array, 'tokens rows'], rows: Any
) -> Float[Array, 'entries']:
  """Gradient of the product in each weight that is held, float32."""
  whole = x.shape[1] * dy.shape[1]
  if rows.index.size > thresholds.ROWS_SAMPLED_BELOW * whole:
    full = jnp.matmul(dy.T, x, preferred_element_type=jnp.float32)
    return full[reference.channels(rows), rows.index]
  wide = (x.astype(jnp.float32), dy.astype(jnp.float32))
  return _call_sampled(rows.index, rows.start, *wide)


def kept_gradient(
  x: Float[Array, 'tokens inputs'],
  dy: Float[Array, 'tokens outputs'],
  by_input: Any,
) -> Float[Array, 'inputs outputs']:
  """The same as a matrix that is 0 where no weight is held, float32."""
  wide = (x.astype(jnp.float32), dy.astype(jnp.float32))
  return _call_kept_gradient(by_input.index, by_input.start, *wide)


def gather(
  matrix: Float[Array, 'inputs outputs'], capacity: int, by: str
) -> tuple[Float[Array, 'capacity'], tuple, Int32[Array, '']]:
  """`row_sparse_reference.gather` of a float32 matrix, by kernels.

  What follows the listed weights is undefined.
  """
  value, index, start, count = _LISTS[by](matrix, capacity)
  return value, (index, start), count
