"""Products with sparse rows in plain jnp: what all else is compared with.

It holds an array of (entries, tokens), or the whole matrix where that would be
large: so it is for small sizes, and for devices that have no faster kernel.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

# Most entries of an array of (entries, tokens).
_GATHERED = 2**26


def channels(rows: Any) -> Int32[Array, 'entries']:
  """The channel of each weight of `row_sparse.Rows`."""
  count = rows.start.size - 1
  return jnp.repeat(
    jnp.arange(count, dtype=jnp.int32),
    jnp.diff(rows.start),
    total_repeat_length=rows.index.size,
  )


def listed_channels(
  index: Int32[Array, 'entries'], start: Int32[Array, '_']
) -> Int32[Array, 'entries']:
  """The same for lists with room left: what is not listed has no channel.

  It gets the number behind the last, which scatters drop.
  """
  entries = jnp.arange(index.size, dtype=jnp.int32)
  channel = jnp.searchsorted(start, entries, side='right') - 1
  return channel.astype(jnp.int32)


def product(
  value: Float[Array, 'entries'], rows: Any, x_t: Float[Array, 'inputs tokens']
) -> Float[Array, 'rows tokens']:
  """Rows of weights times x_t; float32 sums, in the dtype of x_t."""
  if value.size * x_t.shape[1] > _GATHERED:
    matrix = jnp.zeros((rows.start.size - 1, x_t.shape[0]), x_t.dtype)
    matrix = matrix.at[channels(rows), rows.index].set(value.astype(x_t.dtype))
    return matrix @ x_t
  read = x_t[rows.index].astype(jnp.float32)
  terms = value.astype(jnp.float32)[:, None] * read
  count = rows.start.size - 1
  sums = jax.ops.segment_sum(
    terms, channels(rows), count, indices_are_sorted=True
  )
  return sums.astype(x_t.dtype)


def sampled(
  x_t: Float[Array, 'inputs tokens'],
  dy_t: Float[Array, 'rows tokens'],
  rows: Any,
) -> Float[Array, 'entries']:
  """Gradient of the product in each weight that is held, float32."""
  if rows.index.size * x_t.shape[1] > _GATHERED:
    full = jnp.matmul(dy_t, x_t.T, preferred_element_type=jnp.float32)
    return full[channels(rows), rows.index]
  read = x_t[rows.index].astype(jnp.float32)
  return jnp.sum(read * dy_t[channels(rows)].astype(jnp.float32), axis=1)


def kept_gradient(
  x: Float[Array, 'tokens inputs'],
  dy: Float[Array, 'tokens outputs'],
  by_input: Any,
) -> Float[Array, 'inputs outputs']:
  """The same as a matrix that is 0 where no weight is held, float32."""
  full = jnp.matmul(x.T, dy, preferred_element_type=jnp.float32)
  place = jnp.arange(by_input.index.size)
  # What follows the last weight is dropped: it has no row.
  row = jnp.where(place < by_input.start[-1], channels(by_input), x.shape[1])
  held = jnp.zeros(full.shape, bool)
  held = held.at[row, by_input.index].set(True, mode='drop')
  return jnp.where(held, full, 0)


def gather(
  matrix: Float[Array, 'inputs outputs'], capacity: int, by: str
) -> tuple[Float[Array, 'capacity'], tuple, Int32[Array, '']]:
  """Lists the nonzero weights of a matrix that may be traced.

  Args:
    matrix: weights.
    capacity: most weights that are listed; none are if there are more.
    by: 'input' or 'output': whose rows are listed.

  Returns:
    Values, (index, start) as in `row_sparse.Rows`, and the number of weights
    that are not zero; what follows the listed ones is 0.
  """
  matrix = matrix.T if by == 'output' else matrix
  row, index = jnp.nonzero(matrix, size=capacity, fill_value=0)
  held = jnp.sum(matrix != 0, axis=1, dtype=jnp.int32)
  start = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(held)])
  count = start[-1]
  start = jnp.where(count <= capacity, start, 0)
  listed = jnp.arange(capacity) < start[-1]
  value = jnp.where(listed, matrix[row, index], 0)
  return value, (index.astype(jnp.int32), start), count
