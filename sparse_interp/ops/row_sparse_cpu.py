"""Products with sparse rows on a CPU, by kernels of our own, token-major.

A tile of tokens is transposed into the cache, so that a weight multiplies
contiguous numbers; every output sums its few weights in registers; the tile of
outputs is transposed back. What is left is the traffic of x and y.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import native
from sparse_interp.ops import row_sparse_reference as reference
from sparse_interp.ops.native_vectors import (
  GROUP,
  LANES,
  dot,
  lowest_bit,
  nonzero_bits,
  transpose,
  weigh,
)

# Outputs that are computed before they are written: 256 bytes a token.
_OUTPUTS = 64

# Where more than this share of the weights is held, their gradient is read out
# of that of the whole matrix. On 2 cores sampling wins 1.7 times at 1 in 8.
_SAMPLED_BELOW = 1 / 8


@native.machine_code
def row_sparse_product(state, part, parts):
  """value, index, start, x -> y; threads share the tokens."""
  value, index = native.floats(state, 0), native.ints(state, 1)
  start, x = native.ints(state, 2), native.floats(state, 3)
  y = native.floats(state, 4)
  tokens, inputs = native.size(state, 3, 0), native.size(state, 3, 1)
  outputs = native.size(state, 4, 1)
  tile = np.zeros(inputs * LANES, np.float32)
  sums = np.zeros(_OUTPUTS * LANES, np.float32)
  tiles = (tokens + LANES - 1) // LANES
  for i in range(tiles * part // parts, tiles * (part + 1) // parts):
    token = i * LANES
    lanes = min(LANES, tokens - token)
    transpose(x, token * inputs, inputs, lanes, inputs, tile, 0, LANES)
    for output in range(0, outputs, _OUTPUTS):
      count = min(_OUTPUTS, outputs - output)
      for j in range(count):
        begin, end = start[output + j], start[output + j + 1]
        weigh(value, index, begin, end, tile, sums, LANES * j)
      at = token * outputs + output
      transpose(sums, 0, LANES, count, lanes, y, at, outputs)


@native.machine_code
def _tiles(x, token, tokens, width, first, last, tile):
  """Transposes some channels of some tokens; tokens past the end are 0."""
  lanes = min(LANES, tokens - token)
  if lanes < LANES:
    tile[:] = 0
  at = token * width + first
  transpose(x, at, width, lanes, last - first, tile, 0, LANES)


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
    _tiles(x, token, tokens, inputs, 0, inputs, read)
    _tiles(dy, token, tokens, outputs, first, last, written)
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
    _tiles(x, token, tokens, inputs, first, last, read)
    _tiles(dy, token, tokens, outputs, 0, outputs, written)
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


@custom_vmap
def _product(value, index, start, x):
  y = jax.ShapeDtypeStruct((x.shape[0], start.size - 1), jnp.float32)
  return native.call(row_sparse_product, [y], value, index, start, x)[0]


@_product.def_vmap
def _batch_of_products(axis_size, batched, value, index, start, x):
  """A batch of activations alone is more tokens."""
  if list(batched) == [False, False, False, True]:
    y = _product(value, index, start, x.reshape(-1, x.shape[-1]))
    return y.reshape(axis_size, x.shape[1], -1), True
  arguments = (value, index, start, x)
  return _one_by_one(_product, axis_size, batched, arguments), True


def sampled(
  x: Float[Array, 'tokens inputs'], dy: Float[Array, 'tokens rows'], rows: Any
) -> Float[Array, 'entries']:
  """Gradient of the product in each weight that is held, float32."""
  if rows.index.size > _SAMPLED_BELOW * x.shape[1] * dy.shape[1]:
    full = jnp.matmul(dy.T, x, preferred_element_type=jnp.float32)
    return full[reference.channels(rows), rows.index]
  return _sampled(*rows, x.astype(jnp.float32), dy.astype(jnp.float32))


@custom_vmap
def _sampled(index, start, x, dy):
  dvalue = jax.ShapeDtypeStruct(index.shape, jnp.float32)
  return native.call(row_sparse_sampled, [dvalue], index, start, x, dy)[0]


@_sampled.def_vmap
def _batch_of_samples(axis_size, batched, *arguments):
  return _one_by_one(_sampled, axis_size, batched, arguments), True


def kept_gradient(
  x: Float[Array, 'tokens inputs'],
  dy: Float[Array, 'tokens outputs'],
  by_input: Any,
) -> Float[Array, 'inputs outputs']:
  """The same as a matrix that is 0 where no weight is held, float32."""
  dw = jax.ShapeDtypeStruct((x.shape[1], dy.shape[1]), jnp.float32)
  wide = (x.astype(jnp.float32), dy.astype(jnp.float32))
  return native.call(row_sparse_kept_gradient, [dw], *by_input, *wide)[0]


def _one_by_one(function, axis_size, batched, arguments):
  whole = [
    a if is_batched else jnp.broadcast_to(a, (axis_size, *a.shape))
    for a, is_batched in zip(arguments, batched, strict=True)
  ]
  return lax.map(lambda one: function(*one), tuple(whole))


@native.machine_code
def _next_weights(row, first):
  """Bits of the weights in the next group that are not zero."""
  if first + GROUP <= row.size:
    return nonzero_bits(row, first)
  bits = 0
  for j in range(row.size - first):
    bits |= (row[first + j] != 0) << j
  return bits


@native.machine_code
def rows_by_input(state, part, _):
  """matrix -> value, index, start, count; see `gather`."""
  if part:
    return
  matrix, value = native.floats(state, 0), native.floats(state, 1)
  index, start = native.ints(state, 2), native.ints(state, 3)
  count = native.ints(state, 4)
  inputs, outputs = native.size(state, 0, 0), native.size(state, 0, 1)
  place = 0
  start[0] = 0
  for i in range(inputs):
    row = matrix[i * outputs : (i + 1) * outputs]
    held = np.int32(0)
    for weight in row:
      held += np.int32(weight != 0)
    start[i + 1] = start[i] + held
    if start[i + 1] > value.size:
      continue
    for first in range(0, outputs, GROUP):
      bits = _next_weights(row, first)
      while bits:
        j = first + lowest_bit(bits)
        value[place] = row[j]
        index[place] = j
        place += 1
        bits &= bits - 1
  count[0] = start[inputs]
  if count[0] > value.size:
    start[:] = 0


@native.machine_code
def rows_by_output(state, part, _):
  """matrix -> value, index, start, count; see `gather`."""
  if part:
    return
  matrix, value = native.floats(state, 0), native.floats(state, 1)
  index, start = native.ints(state, 2), native.ints(state, 3)
  count = native.ints(state, 4)
  inputs, outputs = native.size(state, 0, 0), native.size(state, 0, 1)
  start[:] = 0
  held = start[1:]
  for i in range(inputs):
    row = matrix[i * outputs : (i + 1) * outputs]
    for j in range(outputs):
      held[j] += np.int32(row[j] != 0)
  for j in range(outputs):
    start[j + 1] += start[j]
  count[0] = start[outputs]
  if count[0] > value.size:
    start[:] = 0
    return
  place = start[:outputs].copy()
  for i in range(inputs):
    row = matrix[i * outputs : (i + 1) * outputs]
    for first in range(0, outputs, GROUP):
      bits = _next_weights(row, first)
      while bits:
        j = first + lowest_bit(bits)
        value[place[j]] = row[j]
        index[place[j]] = i
        place[j] += 1
        bits &= bits - 1


def gather(
  matrix: Float[Array, 'inputs outputs'], capacity: int, by: str
) -> tuple[Float[Array, 'capacity'], tuple, Int32[Array, '']]:
  """Lists the nonzero weights of a matrix that may be traced.

  Args:
    matrix: float32.
    capacity: most weights that are listed; none are if there are more.
    by: 'input' or 'output': whose rows are listed.

  Returns:
    Values, (index, start) as in `row_sparse.Rows`, and the number of weights
    that are not zero; what follows the listed ones is undefined.
  """
  work = {'input': rows_by_input, 'output': rows_by_output}[by]
  rows = matrix.shape[by == 'output']
  value, index, start, count = native.call(
    work,
    [
      jax.ShapeDtypeStruct((capacity,), jnp.float32),
      jax.ShapeDtypeStruct((capacity,), jnp.int32),
      jax.ShapeDtypeStruct((rows + 1,), jnp.int32),
      jax.ShapeDtypeStruct((1,), jnp.int32),
    ],
    matrix,
  )
  return value, (index, start), count[0]
