"""Top-k by single warps of a GPU.

AbsTopK gives each warp a row of its own, in its registers: a count is 32
additions of a lane and one instruction over the warp, and no warp waits for
another. The search halves the range of bits that holds the threshold, and ends
as soon as exactly k entries are at or above it, which is known after about a
dozen counts where magnitudes differ. The projection counts a whole tensor
against many candidates in one read.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import machine
from sparse_interp.ops.gpu_threads import launch

# Widest rows, by bytes of an entry, that leave a lane registers to work with.
WIDEST_ROW = {4: 4096, 2: 2048}

_LANES = 32

# Entries of a lane up to which it holds them twice.
_FEW = 64
_WORDS = 4  # that a thread reads at once: 16 bytes
_MANTISSA_BITS = {'float32': 23, 'bfloat16': 7, 'float16': 10}

# Blocks per multiprocessor that count, and vectors that a thread has under way.
_BLOCKS = 8
_UNROLLED = 4


def abs_topk_rows(
  x: Float[Array, 'rows width'],
  k: int,
  interpret: bool = False,
  warps: int = launch.WARPGROUP,
) -> Float[Array, 'rows width']:
  """AbsTopK of every row; zeros that are kept come out as -0.

  Args:
    x: float32, bfloat16 or float16; no NaN; at most WIDEST_ROW wide.
    k: entries kept per row, in [1, width]; ties go to the lowest indices.
    interpret: emulate on a CPU.
    warps: of a block. The more there are, the fewer registers the compiler may
      give to each thread.
  """
  rows, width = x.shape
  per_lane = 4 * _WORDS // x.dtype.itemsize
  # What is padded is the last among equals.
  padded = jnp.pad(x, ((0, 0), (0, -width % (per_lane * _LANES))))
  program = functools.partial(
    _row,
    rows=rows,
    width=padded.shape[1],
    k=k,
    dtype=x.dtype.name,
    warps=warps,
  )
  (y,) = launch.run(
    program,
    [padded],
    [jax.ShapeDtypeStruct(padded.shape, x.dtype)],
    blocks=-(-rows // warps),
    warps=warps,
    interpret=interpret,
  )
  return y[:, :width]


def _row(t: Any, x: Any, y: Any, *, rows, width, k, dtype, warps) -> None:
  row = t.block * warps + t.warp
  t.when(row < rows, lambda: _keep(t, x, y, row, width, k, dtype))


def _keep(t, x, y, row, width, k, dtype):
  is_narrow = dtype != 'float32'
  per_lane = 2 * _WORDS if is_narrow else _WORDS
  places = range(0, width, _LANES * per_lane)
  first = row * width + t.lane * per_lane
  words = [t.words(x, first, _WORDS, offset=place) for place in places]
  # The sign goes to the end, so that what is compared also holds it.
  entries = [
    [entry for word in group for entry in _entries(t, word, is_narrow)]
    for group in words
  ]
  flat = [entry for group in entries for entry in group]

  def total(sums):
    return t.warp_sum(functools.reduce(lambda a, b: a + b, sums))

  def count_at_least(bits):
    negated = 0 - (bits << 1)
    sums = [t.whole(0)] * 4
    for i, entry in enumerate(flat):
      sums[i % 4] = t.count_up(sums[i % 4], entry, negated)
    return total(sums)

  largest = functools.reduce(
    t.maximum, [t.shift_right(entry, 1) for entry in flat]
  )
  high = t.warp_max(largest) + 1
  state = _search(t, count_at_least, high, width, k, dtype)
  threshold, _, at_least, above, *_ = state
  many = at_least > k
  many = at_least > k

  def ties(bound):
    """Whether entries are at the threshold and before an index."""
    before = bound - t.lane * per_lane
    for group, place in zip(entries, places, strict=True):
      if len(flat) > _FEW:
        # Read again, since registers are not enough to hold what is compared.
        found = t.words(x, first, _WORDS, offset=place, again=True)
        group = [e for word in found for e in _entries(t, word, is_narrow)]
      for j, entry in enumerate(group):
        yield (t.shift_right(entry, 1) == threshold) & (before > place + j)

  def count_before(bound):
    return total([t.as_count(tied) for tied in ties(bound)])

  bound = _bound_of_ties(t, count_before, k - above, many, width)
  before = bound - t.lane * per_lane
  for group, place in zip(entries, places, strict=True):
    kept = []
    for j, entry in enumerate(group):
      bits = t.shift_right(entry, 1)
      tied = (bits == threshold) & (before > place + j)
      # A kept zero is written as -0, which tells it from those dropped.
      value = t.select(entry == 0, t.whole(1), entry)
      keep = (bits > threshold) | tied
      kept.append(t.select(keep, value, t.whole(0)))
    t.put_words(y, first, place, _words(t, kept, is_narrow))


def _entries(t, word, is_narrow):
  """Entries of a word: the bits of the magnitude, then the sign."""
  if not is_narrow:
    return [(word << 1) | t.shift_right(word, 31)]
  low, high = word & 0xFFFF, t.shift_right(word, 16)
  return [
    ((half << 1) & 0xFFFF) | t.shift_right(half, 15) for half in (low, high)
  ]


def _words(t, entries, is_narrow):
  """The words of entries again."""
  if not is_narrow:
    return [t.shift_right(e, 1) | (e << 31) for e in entries]
  halves = [t.shift_right(e, 1) | ((e & 1) << 15) for e in entries]
  return [
    low | (high << 16)
    for low, high in zip(halves[::2], halves[1::2], strict=True)
  ]


def _search(t, count_at_least, high, width, k, dtype):
  """Bits that at least k are at or above, exactly k where that can be.

  From the largest magnitude down, in steps of two octaves, then four, eight,
  until enough are at or above. Then by halves and, every other time and where
  bits are many, by the share of the entries between both ends that is wanted.

  Returns:
    lowest bits that are kept, lowest above for which too few are, both counts.
  """

  def settle(low, high, at_least, above, step, turn):
    down = t.maximum(high - step, t.whole(1))
    half = low + t.shift_right(high - low, 1)
    if dtype == 'float32':
      share = t.divided(t.to_float(at_least - k), t.to_float(at_least - above))
      part = t.to_int(t.times(t.to_float(high - low), share))
      guess = t.minimum(t.maximum(low + part, low + 1), high - 1)
      half = t.select(turn == 0, guess, half)
    middle = t.select(low == 0, down, half)
    found = count_at_least(middle)
    enough = found >= k
    return (
      t.select(enough, middle, low),
      t.select(enough, high, middle),
      t.select(enough, found, at_least),
      t.select(enough, above, found),
      step << 1,
      t.select(low == 0, turn, turn ^ 1),
    )

  start = [0, None, width, 0, 2 << _MANTISSA_BITS[dtype], 0]
  return t.repeat(
    lambda low, high, at_least, *_: (high - low > 1) & (at_least > k),
    settle,
    [high if number is None else t.whole(number) for number in start],
  )


def _bound_of_ties(t, count_before, room, many, width):
  """Index below which entries at the threshold are kept: all, but if `many`."""
  n_bits = width.bit_length()

  def settle(_, bound, bit):
    candidate = bound | bit
    fits = room >= count_before(candidate)
    return t.select(fits, candidate, bound), t.shift_right(bit, 1)

  steps = t.select(many, t.whole(n_bits), t.whole(0))
  bound, _ = t.loop(
    t.whole(0), steps, settle, [t.whole(0), t.whole(1 << (n_bits - 1))]
  )
  return t.select(many, bound, t.whole(width))


def count_at_least(
  words: Int32[Array, '...'],
  pivots: Int32[Array, 'pivots'],
  interpret: bool = False,
) -> Int32[Array, 'pivots']:
  """Counts the words, without their sign bits, at or above each pivot.

  Args:
    words: integers of any shape, at least one; read once.
    pivots: at least 1 each; a thread holds all.
    interpret: emulate on a CPU.
  """
  flat = words.reshape(-1)
  vectors = flat.size // _WORDS
  last = flat[vectors * _WORDS :] & 0x7FFFFFFF
  counts = jnp.sum(last[:, None] >= pivots, axis=0, dtype=jnp.int32)
  if not vectors:
    return counts
  blocks = _BLOCKS * machine.multiprocessors()
  if interpret:
    blocks = 2
  blocks = min(blocks, -(-vectors // (_LANES * launch.WARPGROUP)))
  program = functools.partial(
    _count, vectors=vectors, pivots_count=pivots.size, blocks=blocks
  )
  shape = (blocks * launch.WARPGROUP, pivots.size)
  (of_warps,) = launch.run(
    program,
    [flat, pivots],
    [jax.ShapeDtypeStruct(shape, jnp.int32)],
    blocks=blocks,
    interpret=interpret,
  )
  return counts + jnp.sum(of_warps, axis=0)


def _count(t, words, pivots, counts, *, vectors, pivots_count, blocks):
  negated = [
    0 - t.words(pivots, t.whole(i), 1, constant=True)[0]
    for i in range(pivots_count)
  ]
  block_size = _LANES * launch.WARPGROUP
  stride = blocks * block_size

  def add(first, sums, ahead):
    groups = [
      t.words(words, (first + i * stride) * _WORDS, _WORDS, constant=True)
      for i in range(ahead)
    ]
    sums = list(sums)
    for group in groups:
      for word in group:
        bits = word & 0x7FFFFFFF
        for i, pivot in enumerate(negated):
          sums[i] = t.count_up(sums[i], bits, pivot)
    return [first + ahead * stride, *sums]

  state = [t.block * block_size + t.thread, *[t.whole(0) for _ in negated]]
  for ahead in (_UNROLLED, 1):
    state = t.repeat(
      lambda first, *_, ahead=ahead: first + (ahead - 1) * stride < vectors,
      lambda first, *sums, ahead=ahead: add(first, sums, ahead),
      state,
    )
  totals = [t.warp_sum(value) for value in state[1:]]
  row = (t.block * launch.WARPGROUP + t.warp) * pivots_count

  def write():
    for i, total in enumerate(totals):
      t.put_words(counts, row, i, [total])

  t.when(t.lane == 0, write)
