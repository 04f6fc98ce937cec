"""Weights of sparse rows in the order in which the warps of a GPU take them.

A warp takes 64 output channels that lie one after the other, longest first, and
sums a strip of 8, 16 or 32 of them at a time, each in 4, 2 or 1 lanes. So rows
of a strip are about equally long; what they lack is filled up, to steps of four
weights, with the value 0 and a channel behind the last, which is 0 too. All
that a warp needs to know lies in one stream: the first word of a step says
whether it is the last of its strip, and which output the row is. Lists are made
on the host, once for a model that does not change.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Integer

# Output channels of a warp: the width of a line of memory, in 16-bit floats.
ROWS = 64

# Weights of a row that a lane reads at once: 16 bytes.
STEP = 4

# In the first word of a step: the channel, the output among 64, the end.
CHANNEL_BITS = 16
LAST = 1 << 30

_LANES = 32


class Strips(NamedTuple):
  """The weights by step, row and place in the step; a pytree.

  Attributes:
    source: place of the weight among the values, their number for none.
    word: the input that is read, their number for none; see above.
    begin: first step of each 64 outputs, and the number of steps at the end.
  """

  source: Int32[Array, 'steps rows step']
  word: Int32[Array, 'steps rows step']
  begin: Int32[Array, '_']


def make(
  index: Integer[np.ndarray, 'entries'],
  start: Integer[np.ndarray, '_'],
  inputs: int,
  lanes: int,
) -> Strips:
  """Orders the weights of `row_sparse.Rows`, which must not be traced.

  Args:
    index: the channel that is read, row after row.
    start: where the weights of a row begin, and their number at the end.
    inputs: channels there are, fewer than 2**16.
    lanes: that share a row: 4, 2 or 1.
  """
  count = np.diff(start)
  rows = count.size
  per_strip = _LANES // lanes
  filled = np.pad(count, (0, -rows % ROWS)).reshape(-1, ROWS)
  longest_first = np.argsort(-filled, axis=1, kind='stable')
  ordered = np.take_along_axis(filled, longest_first, 1)
  longest = ordered.reshape(-1, per_strip).max(axis=1)
  steps = np.maximum(1, -(-longest // STEP))
  begin = np.concatenate([[0], np.cumsum(steps)])
  # Position of each row among its 64, longest first.
  position = np.argsort(longest_first, axis=1).reshape(-1)[:rows]
  strip = np.arange(rows) // ROWS * (ROWS // per_strip) + position // per_strip
  row = np.repeat(np.arange(rows), count)
  in_strip = (position % per_strip)[row]
  place = _places(index, row, in_strip, lanes, start)
  # A warp brings in 16 bytes per lane at once, and up to twice more than it
  # needs.
  blocks = -(-int(begin[-1]) // lanes) + 2
  shape = (blocks * lanes, per_strip, STEP)
  at = (begin[strip[row]] + place // STEP, in_strip, place % STEP)
  source = np.full(shape, index.size, np.int32)
  source[at] = np.arange(index.size)
  word = np.full(shape, inputs, np.int32)
  word[at] = index
  outputs = longest_first.reshape(-1, per_strip)
  word[begin[1:] - 1, :, 0] |= (outputs << CHANNEL_BITS) | LAST
  of_chunks = begin[:: ROWS // per_strip]
  return Strips(*(jnp.asarray(a, jnp.int32) for a in (source, word, of_chunks)))


def _places(
  index: Integer[np.ndarray, 'entries'],
  row: Integer[np.ndarray, 'entries'],
  in_strip: Integer[np.ndarray, 'entries'],
  lanes: int,
  start: Integer[np.ndarray, '_'],
) -> Integer[np.ndarray, 'entries']:
  """Places of weights within their rows, so that few lanes meet in a bank.

  Eight lanes that read at once span the banks if the channels that they read
  differ by their remainder. So a row takes its weights in turn by remainder,
  and each of those that read together begins with another one.
  """
  apart = 8 // lanes
  remainder = index % apart
  by_remainder = np.lexsort((remainder, row))
  group = (row * apart + remainder)[by_remainder]
  rank = np.empty_like(row)
  rank[by_remainder] = np.arange(index.size) - np.searchsorted(group, group)
  turn = rank * apart + (remainder - in_strip) % apart
  by_turn = np.lexsort((turn, row))
  place = np.empty_like(row)
  place[by_turn] = np.arange(index.size) - start[row[by_turn]]
  return place
