"""Vector instructions for small dense matrices that lie in the first caches.

One product serves all: what it reads number by number may be transposed. What
it reads and writes by vectors is padded by its caller.
"""

import math

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sparse_interp.ops.cpu_kernels.native import machine_code
from sparse_interp.ops.cpu_kernels.native_vectors import (
  WORD,
  data_of,
  fold,
  spread,
  vector_at,
)

# What rows and columns of a product are padded to: their sums fit registers. A
# row is a vector, of 512 bits or two of 256.
ROWS = 8 if binding.get_host_cpu_features().get('avx512f', False) else 4
COLUMNS = 16

_VECTOR = ir.VectorType(ir.FloatType(), COLUMNS)

_FUSED = ('contract',)

_LOG2E = float(np.float32(1 / math.log(2)))
# log 2 in two parts; a product of the first with an exponent is exact.
_LOG2_HIGH = 355 / 512
_LOG2_LOW = float(np.float32(math.log(2) - _LOG2_HIGH))
_SERIES = [float(np.float32(1 / math.factorial(i))) for i in range(8)]
_TINY = -87.0


@intrinsic
def _add_tile(
  typing_context, a, at, row, step, inner, b, to, stride, c, place, line
):
  """c[place + i line + l] += sum_m a[at + i row + m step] b[to + m stride + l].

  For i < ROWS, l < COLUMNS and m < inner. All words are int64, all numbers
  float32.
  """
  del typing_context, at, row, step, inner, to, stride, place, line

  def generate(context, builder, signature, arguments):
    a, b, c = (
      data_of(context, builder, signature, arguments, i) for i in (0, 5, 8)
    )
    _, at, row, step, inner, _, to, stride, _, place, line = arguments
    cells = [
      vector_at(
        builder, c, builder.add(place, builder.mul(line, WORD(i))), _VECTOR
      )
      for i in range(ROWS)
    ]
    sums = [cgutils.alloca_once(builder, _VECTOR) for _ in cells]
    for cell, total in zip(cells, sums, strict=True):
      builder.store(builder.load(cell, align=4), total)
    loop = cgutils.for_range_slice(builder, WORD(0), inner, WORD(1), WORD)
    with loop as (m, _):
      start = builder.add(to, builder.mul(m, stride))
      read = builder.load(vector_at(builder, b, start, _VECTOR), align=4)
      start = builder.add(at, builder.mul(m, step))
      for i, total in enumerate(sums):
        number = builder.add(start, builder.mul(row, WORD(i)))
        number = builder.load(builder.gep(a, [number]))
        weight = spread(builder, number, _VECTOR)
        term = builder.fmul(weight, read, flags=_FUSED)
        term = builder.fadd(builder.load(total), term, flags=_FUSED)
        builder.store(term, total)
    for cell, total in zip(cells, sums, strict=True):
      builder.store(builder.load(total), cell, align=4)
    return context.get_dummy_value()

  word = types.int64
  signature = types.void(
    a, word, word, word, word, b, word, word, c, word, word
  )
  return signature, generate


@machine_code
def add_product(rows, columns, inner, a, b, c):
  """c[i, l] += sum over m < inner of a[i, m] b[m, l], i < rows, l < columns.

  Args:
    rows: a multiple of ROWS.
    columns: a multiple of COLUMNS.
    inner: terms of a sum.
    a: (numbers, at, row, step): a[i, m] lies at `at + i * row + m * step` of
      the numbers, flat float32.
    b: (numbers, at, row): b[m, l] lies at `at + m * row + l`.
    c: (numbers, at, row), likewise.
  """
  a, at, a_row, step = a
  b, to, b_row = b
  c, place, c_row = c
  for column in range(0, columns, COLUMNS):
    for i in range(0, rows, ROWS):
      own, into = at + i * a_row, place + i * c_row + column
      _add_tile(
        a, own, a_row, step, inner, b, to + column, b_row, c, into, c_row
      )


def _larger(builder):
  """A function of two numbers or vectors: in each lane the larger."""
  return lambda a, b: builder.select(builder.fcmp_ordered('>', a, b), a, b)


@intrinsic
def largest(typing_context, a, at, count):
  """The largest of the `count` numbers, a multiple of COLUMNS, from `at` on."""
  del typing_context, at, count

  def generate(context, builder, signature, arguments):
    data = data_of(context, builder, signature, arguments, 0)
    _, at, count = arguments
    larger = _larger(builder)
    found = cgutils.alloca_once(builder, _VECTOR)
    builder.store(ir.Constant(_VECTOR, [-math.inf] * COLUMNS), found)
    loop = cgutils.for_range_slice(builder, WORD(0), count, WORD(COLUMNS), WORD)
    with loop as (i, _):
      place = vector_at(builder, data, builder.add(at, i), _VECTOR)
      builder.store(
        larger(builder.load(place, align=4), builder.load(found)), found
      )
    return fold(builder, builder.load(found), larger)

  return types.float32(a, types.int64, types.int64), generate


def _exponential(builder, x):
  """exp(x) in every lane, to 2e-7 of it; below about 1e-38 it is 0.

  With n = x / log 2, rounded, it is 2^n exp(x - n log 2), whose last factor is
  summed as a power series. Adding 1.5 * 2^23 rounds: what is behind the point
  has no place, and n stands in the lowest bits.
  """

  def every(number):
    return ir.Constant(_VECTOR, [number] * COLUMNS)

  def fused(a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=_FUSED), c, flags=_FUSED)

  rounder = every(1.5 * 2**23)
  shifted = fused(x, every(_LOG2E), rounder)
  n = builder.fsub(shifted, rounder)
  rest = fused(n, every(-_LOG2_HIGH), x)
  rest = fused(n, every(-_LOG2_LOW), rest)
  power = every(_SERIES[-1])
  for coefficient in _SERIES[-2::-1]:
    power = fused(power, rest, every(coefficient))
  bits = ir.VectorType(ir.IntType(32), COLUMNS)
  shift = ir.Constant(bits, [23] * COLUMNS)
  exponent = builder.shl(builder.bitcast(shifted, bits), shift)
  grown = builder.add(builder.bitcast(power, bits), exponent)
  grown = builder.bitcast(grown, _VECTOR)
  # Not a number stays what it is: the comparison does not hold for it.
  is_tiny = builder.fcmp_ordered('<', x, every(_TINY))
  return builder.select(is_tiny, every(0.0), grown)


@intrinsic
def exponentials(typing_context, a, at, count, origin):
  """Puts exp(a - origin) in the place of `count` numbers; returns their sum.

  Args:
    a: float32, flat; at most `origin` everywhere that counts.
    at: where the numbers begin.
    count: a multiple of COLUMNS.
    origin: float32.
  """
  del typing_context, at, count, origin

  def generate(context, builder, signature, arguments):
    data = data_of(context, builder, signature, arguments, 0)
    _, at, count, origin = arguments
    origin = spread(builder, origin, _VECTOR)
    total = cgutils.alloca_once(builder, _VECTOR)
    builder.store(ir.Constant(_VECTOR, [0.0] * COLUMNS), total)
    loop = cgutils.for_range_slice(builder, WORD(0), count, WORD(COLUMNS), WORD)
    with loop as (i, _):
      place = vector_at(builder, data, builder.add(at, i), _VECTOR)
      x = builder.fsub(builder.load(place, align=4), origin)
      power = _exponential(builder, x)
      builder.store(power, place, align=4)
      builder.store(builder.fadd(builder.load(total), power), total)
    return fold(builder, builder.load(total), builder.fadd)

  word = types.int64
  return types.float32(a, word, word, types.float32), generate
