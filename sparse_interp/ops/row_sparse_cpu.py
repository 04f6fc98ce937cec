"""Products with sparse rows on a CPU, by kernels of our own, token-major.

A tile of tokens is transposed into the cache, so that a weight multiplies
contiguous numbers; every output sums its few weights in registers; the tile of
outputs is transposed back. What is left is the traffic of x and y.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from sparse_interp.ops import native
from sparse_interp.ops import row_sparse_reference as reference
from sparse_interp.ops.native_vectors import LANES, dot, transpose, weigh

# Outputs that are computed before they are written: 512 bytes a token.
_OUTPUTS = 128

# Where more than this share of the weights is held, their gradient is read out
# of that of the whole matrix. On 2 cores sampling wins 1.7 times at 1 in 8.
_SAMPLED_BELOW = 1 / 8


@native.machine_code
def _load_tile(x, token, tokens, width, first, last, tile):
  """Transposes some channels of some tokens; tokens past the end are 0."""
  lanes = min(LANES, tokens - token)
  if lanes < LANES:
    tile[:] = 0
  at = token * width + first
  transpose(x, at, width, lanes, last - first, tile, 0, LANES)


@native.machine_code
def row_sparse_product(state, part, parts):
  """value, index, start, x -> y; threads share the tokens."""
  value, index = native.floats(state, 0), native.ints(state, 1)
  start, x = native.ints(state, 2), native.floats(state, 3)
  y = native.floats(state, 4)
  tokens, inputs = native.size(state, 3, 0), native.size(state, 3, 1)
  outputs = native.size(state, 4, 1)
  tile = np.empty(inputs * LANES, np.float32)
  sums = np.zeros(_OUTPUTS * LANES, np.float32)
  tiles = (tokens + LANES - 1) // LANES
  for i in range(tiles * part // parts, tiles * (part + 1) // parts):
    token = i * LANES
    _load_tile(x, token, tokens, inputs, 0, inputs, tile)
    lanes = min(LANES, tokens - token)
    for output in range(0, outputs, _OUTPUTS):
      count = min(_OUTPUTS, outputs - output)
      for j in range(count):
        begin, end = start[output + j], start[output + j + 1]
        weigh(value, index, begin, end, tile, sums, LANES * j)
      at = token * outputs + output
      transpose(sums, 0, LANES, count, lanes, y, at, outputs)


@native.machine_code
def row_sparse_sampled(state, part, parts):
  """index, start, x, dy -> dvalue; threads share the outputs."""
  index, start = native.ints(state, 0), native.ints(state, 1)
  x, dy = native.floats(state, 2), native.floats(state, 3)
  dvalue = native.floats(state, 4)
  tokens, inputs = native.size(state, 2, 0), native.size(state, 2, 1)
  outputs = native.size(state, 3, 1)
  first, last = outputs * part // parts, outputs * (part + 1) // parts
  dvalue[start[first] : start[last]] = 0
  read = np.empty(inputs * LANES, np.float32)
  written = np.empty((last - first) * LANES, np.float32)
  for token in range(0, tokens, LANES):
    _load_tile(x, token, tokens, inputs, 0, inputs, read)
    _load_tile(dy, token, tokens, outputs, first, last, written)
    for j in range(first, last):
      for e in range(start[j], start[j + 1]):
        to = LANES * (j - first)
        dvalue[e] += dot(read, LANES * index[e], written, to)


@native.machine_code
def row_sparse_kept_gradient(state, part, parts):
  """index, start by input, x, dy -> dw, dense; threads share the inputs."""
  index, start = native.ints(state, 0), native.ints(state, 1)
  x, dy = native.floats(state, 2), native.floats(state, 3)
  dw = native.floats(state, 4)
  tokens, inputs = native.size(state, 2, 0), native.size(state, 2, 1)
  outputs = native.size(state, 3, 1)
  first, last = inputs * part // parts, inputs * (part + 1) // parts
  dw[first * outputs : last * outputs] = 0
  read = np.empty((last - first) * LANES, np.float32)
  written = np.empty(outputs * LANES, np.float32)
  for token in range(0, tokens, LANES):
    _load_tile(x, token, tokens, inputs, first, last, read)
    _load_tile(dy, token, tokens, outputs, 0, outputs, written)
    for i in range(first, last):
      for e in range(start[i], start[i + 1]):
        at = LANES * (i - first)
        term = dot(read, at, written, LANES * index[e])
        dw[i * outputs + index[e]] += term


def product(
  value: Float[Array, 'entries'], rows: Any, x: Float[Array, 'tokens inputs']
) -> Float[Array, 'tokens rows']:
  """x times rows of weights; float32 sums, in the dtype of x."""
  wide = (value.astype(jnp.float32), *rows, x.astype(jnp.float32))
  return _product(*wide).astype(x.dtype)


def _call_product(value, index, start, x):
  y = jax.ShapeDtypeStruct((x.shape[0], start.size - 1), jnp.float32)
  return native.call(row_sparse_product, [y], value, index, start, x)[0]


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
  if rows.index.size > _SAMPLED_BELOW * x.shape[1] * dy.shape[1]:
    full = jnp.matmul(dy.T, x, preferred_element_type=jnp.float32)
    return full[reference.channels(rows), rows.index]
  wide = (x.astype(jnp.float32), dy.astype(jnp.float32))
  dvalue = jax.ShapeDtypeStruct(rows.index.shape, jnp.float32)
  return native.call(row_sparse_sampled, [dvalue], *rows, *wide)[0]


def kept_gradient(
  x: Float[Array, 'tokens inputs'],
  dy: Float[Array, 'tokens outputs'],
  by_input: Any,
) -> Float[Array, 'inputs outputs']:
  """The same as a matrix that is 0 where no weight is held, float32."""
  dw = jax.ShapeDtypeStruct((x.shape[1], dy.shape[1]), jnp.float32)
  wide = (x.astype(jnp.float32), dy.astype(jnp.float32))
  return native.call(row_sparse_kept_gradient, [dw], *by_input, *wide)[0]
