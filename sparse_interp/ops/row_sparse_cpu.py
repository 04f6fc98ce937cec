"""Products with sparse rows on a CPU: the native call behind BCSR.

Of what XLA itself offers, only a gather of rows comes near it. But that is
fused with the transposes around it, and then walks memory across; nothing is
fused into the native call, so it keeps its speed inside a model. The rest of
`jax.experimental.sparse` is not used.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import sparse
from jaxtyping import Array, Float

from sparse_interp.ops import row_sparse_reference as reference

# Where more than this share of the weights is held, their gradient is read out
# of that of the whole matrix. On 2 cores, sampling broke even with it at 1 in
# 32 for width 512 and at 1 in 64 for 1024.
_SAMPLED_BELOW = 1 / 64

# For fewer tokens writing the gradient of the whole matrix is the larger part.
_FEW_TOKENS = 64

# Weights per step of sampling, so that what is gathered stays in the cache.
_SAMPLED_AT_ONCE = 256


def product(
  value: Float[Array, 'entries'], rows: Any, x_t: Float[Array, 'inputs tokens']
) -> Float[Array, 'rows tokens']:
  """Rows of weights times x_t; float32 sums, in the dtype of x_t."""
  # The native call takes nothing narrower; other dtypes would fall back to a
  # scatter without a word.
  wide = (value.astype(jnp.float32), x_t.astype(jnp.float32))
  return _native(wide[0], *rows, wide[1]).astype(x_t.dtype)


@custom_vmap
def _native(value, index, start, x_t):
  shape = (start.size - 1, x_t.shape[0])
  return sparse.BCSR((value, index, start), shape=shape) @ x_t


@_native.def_vmap
def _native_batched(axis_size, batched, value, index, start, x_t):
  """The native call has no batching rule: a batch becomes more tokens."""
  if list(batched) == [False, False, False, True]:
    tokens = x_t.shape[2]
    y_t = _native(
      value, index, start, jnp.moveaxis(x_t, 0, 1).reshape(x_t.shape[1], -1)
    )
    return jnp.moveaxis(y_t.reshape(-1, axis_size, tokens), 1, 0), True
  arguments = [
    a if is_batched else jnp.broadcast_to(a, (axis_size, *a.shape))
    for a, is_batched in zip((value, index, start, x_t), batched, strict=True)
  ]
  return lax.map(lambda a: _native(*a), tuple(arguments)), True


def sampled(
  x_t: Float[Array, 'inputs tokens'],
  dy_t: Float[Array, 'rows tokens'],
  rows: Any,
) -> Float[Array, 'entries']:
  """Gradient of the product in each weight that is held, float32."""
  channel = reference.channels(rows)
  held = rows.index.size / (x_t.shape[0] * dy_t.shape[0])
  if held > _SAMPLED_BELOW and x_t.shape[1] >= _FEW_TOKENS:
    full = jnp.matmul(dy_t, x_t.T, preferred_element_type=jnp.float32)
    return full[channel, rows.index]
  padding = -rows.index.size % _SAMPLED_AT_ONCE
  chunks = [
    jnp.pad(a, (0, padding)).reshape(-1, _SAMPLED_AT_ONCE)
    for a in (rows.index, channel)
  ]

  def sample(chunk):
    terms = x_t[chunk[0]].astype(jnp.float32) * dy_t[chunk[1]]
    return jnp.sum(terms, axis=1, dtype=jnp.float32)

  return lax.map(sample, tuple(chunks)).reshape(-1)[: rows.index.size]
