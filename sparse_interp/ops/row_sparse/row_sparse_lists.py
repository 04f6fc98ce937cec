"""Lists of the nonzero weights of a matrix that changes, on a CPU.

In training a mask changes with every step. Sixteen weights are compared with
zero in one go, so that a list costs about as much as reading the matrix.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_interp.ops.cpu_kernels import native
from sparse_interp.ops.cpu_kernels.native_vectors import (
  GROUP,
  lowest_bit,
  nonzero_bits,
)


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
  """matrix -> value, index, start, count; see `by_input`."""
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
    for j in range(outputs):
      held = np.int32(held + np.int32(row[j] != 0))
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
  """matrix -> value, index, start, count; see `by_output`."""
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


def by_input(
  matrix: Float[Array, 'inputs outputs'], capacity: int
) -> tuple[Array, Array, Array, Array]:
  """value, index, start and count of `row_sparse_kernels.gather`."""
  return _gather(rows_by_input, matrix, capacity, matrix.shape[0])


def by_output(
  matrix: Float[Array, 'inputs outputs'], capacity: int
) -> tuple[Array, Array, Array, Array]:
  """The same, row by row of the transposed matrix."""
  return _gather(rows_by_output, matrix, capacity, matrix.shape[1])


def _gather(work, matrix, capacity, rows):
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
  return value, index, start, count[0]
