"""What is known of units while the text goes by, in bounded memory for each.

Quantiles are over the nonzero activations: AbsTopK leaves most of them zero,
and where a unit is active on one token in a hundred all quantiles over all
tokens would be of its silence. They are counted in a histogram over the first
16 bits of float32 (sign, exponent, 7 bits of the fraction), which is exact,
needs 256 KiB a unit however long the text is, and knows values to 1 in 128.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt64

from sparse_interp.records import kept, lots

_BINS = 2**16
_SHIFT = np.uint32(16)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How many excerpts of which kind, and how long.

  Attributes:
    top: excerpts of the highest activations, one a window.
    quantiles: of the nonzero activations.
    per_quantile: excerpts from each, no two of them from one window.
    random: excerpts from anywhere, no two of them from one window.
    length: tokens of an excerpt.
    window: tokens of a window.
  """

  top: int
  quantiles: int
  per_quantile: int
  random: int
  length: int
  window: int

  @property
  def sampled(self) -> int:
    """Nonzero activations that are kept for the quantiles to choose from.

    Where each quantile has its share, it misses its excerpts less often than
    once in 1e9.
    """
    if not self.per_quantile:
      return 0
    return self.quantiles * (24 + 8 * self.per_quantile)

  @property
  def bytes_of_unit(self) -> int:
    """Memory for one unit, the activations of one chunk not counted."""
    counts = (self.top, self.sampled, self.random)
    lists = sum(kept.Kept.bytes_of_unit(n, self.length) for n in counts)
    return 4 * _BINS + lists


class Chunk(NamedTuple):
  """Where in the text some whole windows are, and what is the same for all.

  Attributes:
    window: number of the first window.
    tokens: lots of the numbers of tokens; see `lots.numbered`.
    windows: of the numbers of windows.
  """

  window: int
  tokens: UInt64[np.ndarray, 'tokens']
  windows: UInt64[np.ndarray, 'windows']


class Running:
  """Statistics and excerpts of some units, up to a place in the text.

  Attributes:
    total: (units,) float64, sum of the activations.
    active: (units,) int64, tokens on which they are not zero.
    lowest, highest: (units,) float32, of the nonzero ones; 0 without any.
    histogram: (units, 65536) uint32, of the nonzero ones; see the module.
    top, sample, random: the places of each kind; `sample` is what the quantiles
      are filled from.
  """

  def __init__(self, names: Sequence[str], sizes: Sizes, seed: int):
    """Nothing was seen yet."""
    units = len(names)
    self.total = np.zeros(units)
    self.active = np.zeros(units, np.int64)
    self.lowest, self.highest = np.zeros((2, units), np.float32)
    self.histogram = np.zeros((units, _BINS), np.uint32)
    self.top, self.sample, self.random = (
      kept.Kept(units, count, sizes.length, sizes.window)
      for count in (sizes.top, sizes.sampled, sizes.random)
    )
    self._names, self._sizes = names, sizes
    self._keys = [
      [lots.key_of(seed, name, kind) for kind in ('quantile', 'random')]
      for name in names
    ]

  def take(
    self, unit: int, chunk: Chunk, row: Float32[np.ndarray, 'tokens']
  ) -> None:
    """Adds the activations of a unit on the next chunk.

    What follows depends on the row and on chunks of fixed size, and neither on
    other units nor on how many windows the model was given at once.

    Args:
      unit: its index.
      chunk: where the row is in the text.
      row: activations.

    Raises:
      ValueError: one of them is not finite.
    """
    size = self._sizes.window
    first = chunk.window * size
    total = row.sum(dtype=np.float64)
    if not np.isfinite(total):
      raise ValueError(
        f'model must have finite activations, got {total} as the sum of '
        f'{self._names[unit]} over {len(chunk.windows)} windows from window '
        f'{chunk.window} on; look for the parameters or tokens that make it so.'
      )
    self.total[unit] += total
    key, random_key = self._keys[unit]

    lot = lots.lots(random_key, chunk.windows)
    window = np.arange(chunk.window, chunk.window + len(lot))
    place = window * size + lots.places(random_key, lot, size)
    self.random.offer(unit, lot, place, row, first)
    active = row != 0
    where = np.flatnonzero(active)
    if not len(where):
      return

    values = row[where]
    lowest, highest = values.min(), values.max()
    if self.active[unit]:
      lowest = min(lowest, self.lowest[unit])
      highest = max(highest, self.highest[unit])
    self.lowest[unit], self.highest[unit] = lowest, highest
    self.active[unit] += len(where)
    order = kept.ordered(values)
    bins = np.bincount(order >> _SHIFT, minlength=_BINS)
    self.histogram[unit] += bins.astype(np.uint32)
    lot = lots.lots(key, chunk.tokens[where])
    self.sample.offer(unit, lot, first + where, row, first)

    # One a window, so that ten tops are not one place in the text: the first
    # among the highest.
    windows = np.where(active, row, np.float32(-np.inf)).reshape(-1, size)
    best = windows.argmax(axis=1)
    height = np.take_along_axis(windows, best[:, None], axis=1)[:, 0]
    there = height > -np.inf
    rank = (~kept.ordered(height[there])).astype(np.uint64)
    place = (window * size + best)[there]
    self.top.offer(unit, rank, place, row, first)

  def edges(self, unit: int) -> Float32[np.ndarray, 'edges']:
    """Edges of the quantiles of a unit's nonzero activations.

    Returns:
      (quantiles + 1,): the lowest nonzero activation, then for j from 1 to
      quantiles - 1 that of rank floor(j * n / quantiles) of n, counted from 0
      and upwards, rounded down to 16 bits, but to no less than the lowest;
      then the highest. All 0 where the unit is dead.
    """
    count, quantiles = int(self.active[unit]), self._sizes.quantiles
    if not count:
      return np.zeros(quantiles + 1, np.float32)
    below = np.cumsum(self.histogram[unit], dtype=np.int64)
    ranks = np.arange(1, quantiles) * count // quantiles
    inner = np.searchsorted(below, ranks, side='right').astype(np.uint32)
    edges = np.maximum(kept.floats(inner << _SHIFT), self.lowest[unit])
    ends = self.lowest[unit : unit + 1], self.highest[unit : unit + 1]
    return np.concatenate([ends[0], edges, ends[1]])
