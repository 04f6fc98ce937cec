"""Products with sparse rows in plain jnp: what all else is compared with.

It holds an array of (entries, tokens), so it is for small sizes, and for
devices that have no kernel.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


def channels(rows: Any) -> Int32[Array, 'entries']:
  """The channel of each weight of `row_sparse.Rows`."""
  count = rows.start.size - 1
  return jnp.repeat(
    jnp.arange(count, dtype=jnp.int32),
    jnp.diff(rows.start),
    total_repeat_length=rows.index.size,
  )


def product(
  value: Float[Array, 'entries'], rows: Any, x_t: Float[Array, 'inputs tokens']
) -> Float[Array, 'rows tokens']:
  """Rows of weights times x_t; float32 sums, in the dtype of x_t."""
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
  read = x_t[rows.index].astype(jnp.float32)
  return jnp.sum(read * dy_t[channels(rows)].astype(jnp.float32), axis=1)
