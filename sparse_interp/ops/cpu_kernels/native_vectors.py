"""Vector instructions for the kernels in `native`, a tile of tokens at a time.

Numba leaves it to LLVM to find vectors in loops, which it does not where
accumulators should stay in registers or where a matrix is transposed; here
these are written as vectors, which LLVM then fits to the processor.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sparse_interp.ops.cpu_kernels.native import machine_code

# Tokens in a tile. The inputs of a tile, (width, 32) float32, are 128 KiB at
# width 1024: they stay in the second cache while all outputs read them.
LANES = 32

# Numbers that are compared with zero in one go.
GROUP = 16

WIDTH = 8  # of a vector: 256 bits
VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
WORD = ir.IntType(64)


def data_of(context, builder, signature, arguments, i):
  """Where the numbers of an array begin."""
  array = context.make_array(signature.args[i])
  return array(context, builder, arguments[i]).data


def vector_at(builder, data, offset, vector=VECTOR):
  """Pointer to a vector that begins at the `offset`-th number."""
  return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def spread(builder, number, vector=VECTOR):
  """The number in every lane."""
  undefined = ir.Constant(vector, ir.Undefined)
  first = builder.insert_element(undefined, number, ir.IntType(32)(0))
  lanes = ir.VectorType(ir.IntType(32), vector.count)
  lanes = ir.Constant(lanes, [0] * vector.count)
  return builder.shuffle_vector(first, undefined, lanes)


def fold(builder, vector, join):
  """One number from all lanes: halves are joined until one is left."""
  width = vector.type.count
  while width > 1:
    width //= 2
    lanes = ir.VectorType(ir.IntType(32), width)
    undefined = ir.Constant(vector.type, ir.Undefined)
    halves = [
      builder.shuffle_vector(
        vector, undefined, ir.Constant(lanes, list(range(i, i + width)))
      )
      for i in (0, width)
    ]
    vector = join(*halves)
  return builder.extract_element(vector, ir.IntType(32)(0))


@intrinsic
def _transpose_square(typing_context, source, at, step, target, to, stride):
  """target[to + c * stride + r] = source[at + r * step + c], 8 by 8.

  The halves of a vector are loaded from rows i and i + 4. Interleaving, in each
  half, vector i with vector i + 2 takes the last bit of the column to the end
  of the row's number; after two times both bits have changed places.
  """
  del typing_context, at, step, to, stride
  half = WIDTH // 2
  part = ir.VectorType(ir.FloatType(), half)

  def mask(lanes):
    lane = ir.VectorType(ir.IntType(32), len(lanes))
    return ir.Constant(lane, lanes)

  both = mask(list(range(WIDTH)))
  mixed = [
    mask(
      [
        first + lane // 2 + lane % 2 * WIDTH + side
        for side in (0, half)
        for lane in range(half)
      ]
    )
    for first in (0, half // 2)
  ]

  def generate(context, builder, signature, arguments):
    data = [data_of(context, builder, signature, arguments, i) for i in (0, 3)]

    def place(i, row, column):
      offset, stride = arguments[3 * i + 1], arguments[3 * i + 2]
      offset = builder.add(offset, builder.mul(stride, WORD(row)))
      offset = builder.add(offset, WORD(column))
      return builder.gep(data[i], [offset])

    def load(row, column):
      pointer = builder.bitcast(place(0, row, column), part.as_pointer())
      return builder.load(pointer, align=4)

    transposed = []
    for column in (0, half):
      rows = [
        builder.shuffle_vector(load(i, column), load(i + half, column), both)
        for i in range(half)
      ]
      for _ in range(half.bit_length() - 1):
        rows = [
          builder.shuffle_vector(rows[i], rows[i + half // 2], lanes)
          for i in range(half // 2)
          for lanes in mixed
        ]
      transposed += rows
    for i, row in enumerate(transposed):
      pointer = builder.bitcast(place(1, i, 0), VECTOR.as_pointer())
      builder.store(row, pointer, align=4)
    return context.get_dummy_value()

  word = types.int64
  return types.void(source, word, word, target, word, word), generate


@machine_code
def transpose(source, at, step, rows, columns, target, to, stride):
  """target[to + c * stride + r] = source[at + r * step + c].

  Columns are the outer loop: what is written, a row of the target, is written
  in one go.
  """
  whole_rows, whole_columns = rows - rows % 8, columns - columns % 8
  for c in range(0, whole_columns, 8):
    for r in range(0, whole_rows, 8):
      _transpose_square(
        source, at + r * step + c, step, target, to + c * stride + r, stride
      )
  for c in range(columns):
    for r in range(whole_rows if c < whole_columns else 0, rows):
      target[to + c * stride + r] = source[at + r * step + c]


@intrinsic
def weigh(typing_context, value, index, begin, end, tile, out, to):
  """out[to:to + LANES] = sum of value[e] * tile[index[e]], begin <= e < end.

  Args:
    value: float32.
    index: int32, rows of the tile.
    begin: int64.
    end: int64.
    tile: float32, flat, rows of LANES.
    out: float32.
    to: int64.
  """
  del typing_context

  def generate(context, builder, signature, arguments):
    value, index, tile, out = (
      data_of(context, builder, signature, arguments, i) for i in (0, 1, 4, 5)
    )
    begin, end, to = (arguments[i] for i in (2, 3, 6))
    zero = ir.Constant(VECTOR, [0.0] * WIDTH)
    offsets = range(0, LANES, WIDTH)
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in offsets]
    for one in sums:
      builder.store(zero, one)
    loop = cgutils.for_range_slice(builder, begin, end, WORD(1), WORD)
    with loop as (entry, _):
      weight = spread(builder, builder.load(builder.gep(value, [entry])))
      row = builder.load(builder.gep(index, [entry]))
      start = builder.mul(builder.zext(row, WORD), WORD(LANES))
      for one, offset in zip(sums, offsets, strict=True):
        place = vector_at(builder, tile, builder.add(start, WORD(offset)))
        term = builder.fmul(
          weight, builder.load(place, align=4), flags=('contract',)
        )
        total = builder.fadd(builder.load(one), term, flags=('contract',))
        builder.store(total, one)
    for one, offset in zip(sums, offsets, strict=True):
      place = vector_at(builder, out, builder.add(to, WORD(offset)))
      builder.store(builder.load(one), place, align=4)
    return context.get_dummy_value()

  word = types.int64
  return types.void(value, index, word, word, tile, out, word), generate


@intrinsic
def dot(typing_context, a, at, b, to):
  """Sum of a[at + l] * b[to + l] over LANES lanes; float32, int64 offsets."""
  del typing_context, at, to

  def generate(context, builder, signature, arguments):
    data = [data_of(context, builder, signature, arguments, i) for i in (0, 2)]
    total = ir.Constant(VECTOR, [0.0] * WIDTH)
    for offset in range(0, LANES, WIDTH):
      pair = [
        builder.load(
          vector_at(builder, one, builder.add(start, WORD(offset))), align=4
        )
        for one, start in zip(data, arguments[1::2], strict=True)
      ]
      term = builder.fmul(*pair, flags=('contract',))
      total = builder.fadd(total, term, flags=('contract',))
    return fold(builder, total, builder.fadd)

  word = types.int64
  return types.float32(a, word, b, word), generate


@intrinsic
def nonzero_bits(typing_context, a, at):
  """Which of the GROUP numbers from the `at`-th on are not zero, as bits."""
  del typing_context, at

  def generate(context, builder, signature, arguments):
    data = data_of(context, builder, signature, arguments, 0)
    group = ir.VectorType(ir.FloatType(), GROUP)
    place = builder.gep(data, [arguments[1]])
    place = builder.bitcast(place, group.as_pointer())
    zero = ir.Constant(group, [0.0] * GROUP)
    held = builder.fcmp_unordered('!=', builder.load(place, align=4), zero)
    return builder.zext(builder.bitcast(held, ir.IntType(GROUP)), WORD)

  return types.int64(a, types.int64), generate


@intrinsic
def lowest_bit(typing_context, bits):
  """The place of the lowest bit that is set; one must be."""
  del typing_context, bits

  def generate(context, builder, signature, arguments):
    del context, signature
    return builder.cttz(arguments[0], ir.IntType(1)(1))

  return types.int64(types.int64), generate
