"""Products with sparse rows on a Hopper GPU, on its ordinary cores.

A block keeps all input channels of a few tokens in shared memory, so that a
weight reads 16 bytes per lane from there: one value multiplies 8 tokens in
bfloat16, 4 in float32. Each warp walks a stream of weights of its own
(`row_strips`), which it brings into shared memory four steps ahead, and turns
its 64 outputs round there, so that whole lines are written. No thread waits for
another warp once the activations are there.

Arithmetic, 8192 tokens, 2048 -> 8192, density 1/128, bfloat16: about 20
instructions for 8 products, 0.1 ms at the rate of an H200; reading the
activations from shared memory takes 0.07 to 0.1, writing the result 0.04.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_interp.ops import machine
from sparse_interp.ops.gpu_threads import launch
from sparse_interp.ops.row_sparse.row_strips import (
  CHANNEL_BITS,
  LAST,
  ROWS,
  STEP,
  Strips,
)

_LANES = 32

# Warps of a block, by name of the variant.
VARIANTS = {'warps8': 8, 'warps12': 12, 'warps16': 16}
DEFAULT = 'warps16'

# Blocks of a stream that a warp holds: one that it works on, one under way.
_HELD = 2

# Words of a block of the stream, and weights: 16 bytes for each lane.
_ENTRIES = 4 * _LANES


def _bytes_of_a_warp(lanes: int) -> int:
  """Shared memory for the results and the stream of a warp."""
  return 16 * lanes * ROWS + _HELD * 2 * _ENTRIES * 4


def lanes_for(inputs: int) -> int:
  """Lanes that share a row, of a matrix with so many inputs; 0 if too many.

  As many as 16 bytes of each input fit into shared memory, with 8 warps.
  """
  for lanes in (4, 2, 1):
    staged = (inputs + 1) * 16 * lanes
    if staged + 8 * _bytes_of_a_warp(lanes) <= launch.SHARED_BYTES:
      return lanes if inputs < 2**CHANNEL_BITS else 0
  return 0


def product(
  value: Float[Array, 'entries'],
  strips: Strips,
  rows: int,
  x: Float[Array, 'tokens inputs'],
  interpret: bool = False,
  variant: str = DEFAULT,
) -> Float[Array, 'tokens rows']:
  """x times rows of weights; float32 sums, in the dtype of x.

  Args:
    value: weights, in the order that `strips.source` counts in; at least one.
    strips: where they are.
    rows: output channels.
    x: float32 or bfloat16, with at least one entry.
    interpret: emulate on a CPU, memory checked.
    variant: of VARIANTS.
  """
  tokens, inputs = x.shape
  per_lane = 16 // x.dtype.itemsize
  lanes = _LANES // strips.word.shape[1]
  tile = lanes * per_lane
  room = launch.SHARED_BYTES - (inputs + 1) * 16 * lanes - 1024
  fitting = room // _bytes_of_a_warp(lanes) // launch.WARPGROUP
  warps = min(VARIANTS[variant], fitting * launch.WARPGROUP)
  # Threads read 32 bytes of a token at once.
  x = jnp.pad(x, ((0, -tokens % tile), (0, -inputs % (2 * per_lane))))
  tiles, chunks = x.shape[0] // tile, strips.begin.size - 1
  splits = max(1, min(machine.multiprocessors() // tiles, -(-chunks // warps)))
  weights = (
    value.astype(jnp.float32).at[strips.source].get(mode='fill', fill_value=0)
  )
  size = {
    'inputs': inputs,
    'width': x.shape[1],
    'lanes': lanes,
    'per_lane': per_lane,
    'chunks': chunks,
    'splits': splits,
    'warps': warps,
  }
  (y,) = launch.run(
    functools.partial(_product, **size),
    [x, weights, strips.word, strips.begin],
    [jax.ShapeDtypeStruct((x.shape[0], chunks * ROWS), x.dtype)],
    blocks=tiles * splits,
    warps=warps,
    shared=[
      ((inputs + 1) * tile, x.dtype),
      (warps * tile * ROWS, x.dtype),
      (warps * _HELD * 2 * _ENTRIES, jnp.int32),
    ],
    interpret=interpret,
  )
  return y[:tokens, :rows]


def _product(t: Any, *memory: Any, **size: int) -> None:
  x, _, _, begin, _, staged, *_ = memory
  tile = size['lanes'] * size['per_lane']
  splits, chunks = size['splits'], size['chunks']
  # Blocks that run together read other tokens, if there are enough.
  quotient = t.quotient(t.block, splits)
  first_token = quotient * tile
  _stage(t, x, staged, first_token, tile, size)
  t.block_barrier()
  # Each warp takes outputs that lie one after the other, and so one stream.
  workers = size['warps'] * splits
  worker = (t.block - quotient * splits) * size['warps'] + t.warp
  mine = [t.quotient((worker + i) * chunks, workers) for i in range(2)]
  steps = [t.words(begin, chunk, 1, constant=True)[0] for chunk in mine]
  _walk(t, memory, steps, mine, first_token, size)


def _stage(t, x, staged, first_token, tile, size):
  """Turns the activations of the block round into shared memory."""
  inputs, width, per_lane = size['inputs'], size['width'], size['per_lane']
  token = t.thread & (tile - 1)
  begin = t.shift_right(t.thread, tile.bit_length() - 1) * (2 * per_lane)
  threads = _LANES * size['warps']

  def pair(column):
    place = (first_token + token) * width + column
    words = [
      word
      for offset in (0, per_lane)
      for word in t.words(x, place, 4, offset=offset, constant=True)
    ]
    for i, word in enumerate(words):
      if per_lane == 4:
        keep(column, i, lambda *at, word=word: t.put_words(staged, *at, [word]))
        continue
      for j, half in enumerate((word, t.shift_right(word, 16))):
        keep(
          column,
          2 * i + j,
          lambda *at, half=half: t.put_half(staged, *at, half),
        )

  def keep(column, i, put):
    if inputs == width:
      put(column * tile + token, i * tile)
    else:  # the last ones are but padding
      t.when(column + i < inputs, lambda: put(column * tile + token, i * tile))

  t.loop(begin, t.whole(width), pair, step=threads // tile * 2 * per_lane)
  per_word = per_lane // 4
  t.when(
    t.thread < tile // per_word,
    lambda: t.put_words(
      staged, t.thread * per_word, inputs * tile, [t.whole(0)]
    ),
  )


def _walk(t, memory, bounds, chunks, first_token, size):
  """The stream of a warp: sums by strips, turned round, written."""
  _, weights, words, _, y, staged, turned, stream = memory
  lanes, per_lane = size['lanes'], size['per_lane']
  tile, per_strip = lanes * per_lane, _LANES // lanes
  in_strip = t.shift_right(t.lane, lanes.bit_length() - 1)
  share = t.lane & (lanes - 1)
  token = share * per_lane
  held = t.warp * (_HELD * 2 * _ENTRIES)
  mine = t.warp * (tile * ROWS)
  # Lanes of a row write to different banks; see `column` below.
  apart = 2 * per_lane

  def slot(block):
    return held + (block & (_HELD - 1)) * (2 * _ENTRIES)

  def block_of(step):
    return t.shift_right(step, lanes.bit_length() - 1)

  def bring(block):
    for i, source in enumerate((words, weights)):
      t.copy_async(
        source,
        block * _ENTRIES + t.lane * 4,
        stream,
        slot(block) + t.lane * 4,
        offset=i * _ENTRIES,
      )
    t.end_of_copies()

  def next_block(block):
    t.wait_for_copies()
    t.warp_barrier()  # and no lane reads the block before any longer
    bring(block + 1)

  def add(step, _, *sums):
    block = block_of(step)
    t.when(
      ((step & (lanes - 1)) == 0) & (step > bounds[0]),
      lambda: next_block(block),
    )
    place = (step & (lanes - 1)) * (per_strip * STEP) + in_strip * STEP
    found = t.words(stream, slot(block) + place, STEP)
    values = t.words(stream, slot(block) + place, STEP, offset=_ENTRIES)
    channels = [found[0] & (2**CHANNEL_BITS - 1), *found[1:]]
    for channel, value in zip(channels, values, strict=True):
      read = t.words(staged, channel * tile + token, 4)
      numbers = _numbers(t, read, per_lane)
      sums = [
        t.fma(t.as_float(value), number, total)
        for number, total in zip(numbers, sums, strict=True)
      ]
    return step + 1, found[0], *sums

  def strip(_, step):
    zeros = [t.real(0.0) for _ in range(per_lane)]
    step, last, *sums = t.repeat(
      lambda step, found, *_: found < LAST, add, [step, t.whole(0), *zeros]
    )
    output = t.shift_right(last, CHANNEL_BITS) & (ROWS - 1)
    column = mine + token * ROWS + (output ^ (share * apart))
    for i, total in enumerate(sums):
      if per_lane == 4:
        t.put_words(turned, column, i * ROWS, [t.as_word(total)])
      else:
        t.put_half(turned, column, i * ROWS, t.narrow(total))
    return (step,)

  def chunk(which, step):
    (step,) = t.loop(t.whole(0), t.whole(ROWS // per_strip), strip, [step])
    t.warp_barrier()
    _write(t, turned, mine, y, first_token, which, apart, size)
    t.warp_barrier()
    return (step,)

  first_block = block_of(bounds[0])
  bring(first_block)
  next_block(first_block)
  t.loop(*chunks, chunk, [bounds[0]])
  t.wait_for_copies()


def _write(t, turned, mine, y, first_token, chunk, apart, size):
  """Writes 64 outputs of each token, a line at a time."""
  per_lane, width = size['per_lane'], size['chunks'] * ROWS
  per_word = per_lane // 4
  place = first_token * width + chunk * ROWS + t.lane * per_word
  for token in range(size['lanes'] * per_lane):
    for part in range(0, ROWS, _LANES * per_word):
      entry = (t.lane * per_word + part) ^ (token // per_lane * apart)
      (word,) = t.words(turned, mine + entry, 1, offset=token * ROWS)
      t.put_words(y, place, token * width + part, [word])


def _numbers(t, words, per_lane):
  """float32 numbers of words that hold float32 or bfloat16."""
  if per_lane == 4:
    return [t.as_float(word) for word in words]
  return [
    t.as_float(half) for word in words for half in (word << 16, word & -65536)
  ]
