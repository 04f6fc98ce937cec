"""Products with sparse rows on a CPU, by kernels of our own, token-major.

A tile of tokens is transposed into the cache, so that a weight multiplies
contiguous numbers; every output sums its few weights in registers; the tile of
outputs is transposed back. What is left is the traffic of x and y.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from sparse_interp.ops.cpu_kernels import native
from sparse_interp.ops.cpu_kernels.native_vectors import (
  LANES,
  dot,
  transpose,
  weigh,
)

# Outputs that are computed before they are written: 512 bytes a token.
_OUTPUTS = 128


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
  value: Float[Array, 'entries'],
  index: Int32[Array, 'entries'],
  start: Int32[Array, '_'],
  x: Float[Array, 'tokens inputs'],
) -> Float[Array, 'tokens rows']:
  """As `row_sparse_kernels.product`, all in float32; one batch."""
  y = jax.ShapeDtypeStruct((x.shape[0], start.size - 1), jnp.float32)
  return native.call(row_sparse_product, [y], value, index, start, x)[0]


def sampled(
  index: Int32[Array, 'entries'],
  start: Int32[Array, '_'],
  x: Float[Array, 'tokens inputs'],
  dy: Float[Array, 'tokens rows'],
) -> Float[Array, 'entries']:
  """As `row_sparse_kernels.sampled`, all in float32."""
  dvalue = jax.ShapeDtypeStruct(index.shape, jnp.float32)
  return native.call(row_sparse_sampled, [dvalue], index, start, x, dy)[0]


def kept_gradient(
  index: Int32[Array, 'entries'],
  start: Int32[Array, '_'],
  x: Float[Array, 'tokens inputs'],
  dy: Float[Array, 'tokens outputs'],
) -> Float[Array, 'inputs outputs']:
  """As `row_sparse_kernels.kept_gradient`, all in float32."""
  dw = jax.ShapeDtypeStruct((x.shape[1], dy.shape[1]), jnp.float32)
  return native.call(row_sparse_kept_gradient, [dw], index, start, x, dy)[0]
