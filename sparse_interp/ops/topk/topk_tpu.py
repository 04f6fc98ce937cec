"""Top-k on TPUs: the loops of `topk`, with all counting on chip.

AbsTopK reads a tile of rows into vector memory once, searches all its rows
there side by side, and writes it once. The projection counts a whole tensor
against several candidates in one read. Rows are counted in float32, exact up
to 2**24, since that is what the vector units add along lanes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import compat

# Entries of a tile of rows, and its least height (that of packed bfloat16).
_TILE = 2**18
_LEAST_ROWS = 16

# Beyond this a tile and its copies do not fit the vector memory.
WIDEST_ROW = 32768

# Shape of a tile that is counted.
_COUNT_ROWS, _COUNT_COLUMNS = 256, 512


def _row_kernel(x_ref, y_ref, *, k, lowest_bit):
  x = x_ref[...]
  words = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
  bits = words & 0x7FFFFFFF

  def count(chosen):
    ones = jnp.where(chosen, jnp.float32(1), jnp.float32(0))
    return jnp.sum(ones, axis=1, keepdims=True)

  def settle_bit(i, threshold):
    candidate = threshold | (jnp.int32(1) << (30 - i))
    return jnp.where(count(bits >= candidate) >= k, candidate, threshold)

  start = jnp.zeros((x.shape[0], 1), jnp.int32)
  threshold = lax.fori_loop(0, 31 - lowest_bit, settle_bit, start)
  tied = bits == threshold
  room = k - count(bits > threshold)
  index = lax.broadcasted_iota(jnp.int32, x.shape, 1)
  n_bits = x.shape[1].bit_length()

  def bound_bit(i, bound):
    candidate = bound | (jnp.int32(1) << (n_bits - 1 - i))
    return jnp.where(
      count(tied & (index < candidate)) <= room, candidate, bound
    )

  # Where all ties fit, as nearly always, there is nothing to search for.
  excess = jnp.max(count(tied) - room)
  bound = lax.fori_loop(0, jnp.where(excess > 0, n_bits, 0), bound_bit, start)
  bound = jnp.where(excess > 0, bound, x.shape[1])
  keep = (bits > threshold) | (tied & (index < bound))
  # A kept zero is written as -0, which tells it from those dropped.
  kept = jnp.where(words == 0, jnp.int32(-(2**31)), words)
  words = jnp.where(keep, kept, 0)
  y_ref[...] = lax.bitcast_convert_type(words, jnp.float32).astype(y_ref.dtype)


def abs_topk_rows(
  x: Float[Array, 'rows width'], k: int, interpret: Any = False
) -> Float[Array, 'rows width']:
  """AbsTopK of every row; zeros that are kept come out as -0.

  Args:
    x: float32, bfloat16 or float16; no NaN; width at most WIDEST_ROW.
    k: entries kept per row, in [1, width]; ties go to the lowest indices.
    interpret: False for a TPU, or `compat.tpu_interpreter()`.
  """
  rows, width = x.shape
  height = min(max(_TILE // width, 1) // _LEAST_ROWS * _LEAST_ROWS, 256)
  height = min(max(height, _LEAST_ROWS), rows)
  # A narrow float becomes a float32 whose last bits are all zero.
  lowest_bit = {'bfloat16': 16, 'float16': 13}.get(x.dtype.name, 0)
  tile = pl.BlockSpec((height, width), lambda i: (i, 0))
  return pl.pallas_call(
    functools.partial(_row_kernel, k=k, lowest_bit=lowest_bit),
    out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    grid=(pl.cdiv(rows, height),),
    in_specs=[tile],
    out_specs=tile,
    compiler_params=compat.tpu_params(['parallel']),
    interpret=interpret,
  )(x)


def _count_kernel(pivots_ref, words_ref, counts_ref, *, shape):
  i, j = pl.program_id(0), pl.program_id(1)

  @pl.when((i == 0) & (j == 0))
  def _():
    counts_ref[...] = jnp.zeros_like(counts_ref)

  words = words_ref[...] & 0x7FFFFFFF
  # What a tile has beyond the edge of the array is anything.
  row = i * words.shape[0] + lax.broadcasted_iota(jnp.int32, words.shape, 0)
  column = j * words.shape[1] + lax.broadcasted_iota(jnp.int32, words.shape, 1)
  words = jnp.where((row < shape[0]) & (column < shape[1]), words, 0)
  for p in range(counts_ref.shape[0]):
    above = (words >= pivots_ref[p]).astype(jnp.int32)
    counts_ref[p : p + 1, :] += jnp.sum(above, axis=0, keepdims=True)


def count_at_least(
  words: Int32[Array, '...'],
  pivots: Int32[Array, 'pivots'],
  interpret: Any = False,
) -> Int32[Array, 'pivots']:
  """Counts the words, without their sign bits, at or above each pivot.

  Args:
    words: integers of any shape, at least one; read once.
    pivots: at least 1 each.
    interpret: False for a TPU, or `compat.tpu_interpreter()`.
  """
  matrix = _as_matrix(words)
  rows = min(_COUNT_ROWS, matrix.shape[0])
  columns = min(_COUNT_COLUMNS, matrix.shape[1])
  counts = pl.pallas_call(
    functools.partial(_count_kernel, shape=matrix.shape),
    out_shape=jax.ShapeDtypeStruct((pivots.size, columns), jnp.int32),
    grid=(pl.cdiv(matrix.shape[0], rows), pl.cdiv(matrix.shape[1], columns)),
    in_specs=[
      pl.BlockSpec(memory_space=pltpu.SMEM),
      pl.BlockSpec((rows, columns), lambda i, j: (i, j)),
    ],
    out_specs=pl.BlockSpec((pivots.size, columns), lambda i, j: (0, 0)),
    compiler_params=compat.tpu_params(['arbitrary', 'arbitrary']),
    interpret=interpret,
  )(pivots, matrix)
  return jnp.sum(counts, axis=1)


def _as_matrix(words: Int32[Array, '...']) -> Int32[Array, 'rows columns']:
  """A matrix of the same words, and zeros, that fills the lanes."""
  if words.ndim > 1 and words.shape[-1] >= 128:
    return words.reshape(-1, words.shape[-1])
  flat = words.reshape(-1)
  return jnp.pad(flat, (0, -flat.size % _COUNT_COLUMNS)).reshape(
    -1, _COUNT_COLUMNS
  )
