"""The best few of all places that go by, with the activations around them."""

import numpy as np
from jaxtyping import Float32, Int, UInt32, UInt64

_LAST = np.uint64(2**64 - 1)


class Kept:
  """For each of several units the places of lowest rank, in bounded memory.

  A place is the number of a token in the text. Places are offered in ascending
  order; of two with one rank the earlier is the better. What is kept does not
  depend on how the text was cut into what is offered at once.

  Attributes:
    rank: (units, count) uint64, ascending.
    place: (units, count) int64; -1 where fewer were offered.
    values: (units, count, length) float32, of the excerpt around each place.
  """

  def __init__(self, units: int, count: int, length: int, window: int):
    """Nothing is kept yet.

    Args:
      units: that places are kept for.
      count: of places for each; 0 keeps none.
      length: of excerpts, in tokens, at most a window.
      window: tokens of a window.
    """
    self.rank = np.full((units, count), _LAST)
    self.place = np.full((units, count), -1, np.int64)
    self.values = np.zeros((units, count, length), np.float32)
    self._window = window

  @staticmethod
  def bytes_of_unit(count: int, length: int) -> int:
    """Memory for one unit."""
    return count * (8 + 8 + 4 * length)

  def offer(
    self,
    unit: int,
    rank: UInt64[np.ndarray, 'offered'],
    place: Int[np.ndarray, 'offered'],
    row: Float32[np.ndarray, 'tokens'],
    first: int,
  ) -> None:
    """Keeps what is better than the worst that is kept.

    Args:
      unit: whose places they are.
      rank: of each place.
      place: ascending, all within the row.
      row: activations of the unit on whole windows.
      first: place of the first token of the row.
    """
    count, length = self.values.shape[1:]
    if not count:
      return
    new = np.flatnonzero(rank < self.rank[unit, -1])
    if len(new) > count:
      limit = np.partition(rank[new], count - 1)[count - 1]
      new = new[rank[new] <= limit]
    if not len(new):
      return
    ranks = np.concatenate([self.rank[unit], rank[new]])
    # Stable: what is kept already stands first, and is earlier in the text.
    order = np.argsort(ranks, kind='stable')[:count]
    old, added = order < count, new[order[order >= count] - count]
    start = starts(place[added], length, self._window) - first
    around = row[start[:, None] + np.arange(length)]
    for array, more in (
      (self.rank, rank[added]),
      (self.place, place[added]),
      (self.values, around),
    ):
      array[unit, old] = array[unit, order[old]]
      array[unit, ~old] = more


def starts(
  place: Int[np.ndarray, 'places'], length: int, window: int
) -> Int[np.ndarray, 'places']:
  """Where the excerpts around places start, as places themselves.

  Three quarters of an excerpt are before its place, since a causal model reads
  no other. It is moved where it would leave its window: it always has `length`
  tokens, all of one window.
  """
  begin, within = place - place % window, place % window
  return begin + np.clip(within - 3 * length // 4, 0, window - length)


def ordered(values: Float32[np.ndarray, 'n']) -> UInt32[np.ndarray, 'n']:
  """Integers in the order of finite floats: their bits, negative ones flipped.

  -0.0 and 0.0 get two.
  """
  bits = values.view(np.uint32)
  sign = (bits >> np.uint32(31)).astype(bool)
  return bits ^ np.where(sign, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))


def floats(order: UInt32[np.ndarray, 'n']) -> Float32[np.ndarray, 'n']:
  """The inverse of `ordered`."""
  negative = order < np.uint32(0x80000000)
  flip = np.where(negative, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
  return (order ^ flip).view(np.float32)
