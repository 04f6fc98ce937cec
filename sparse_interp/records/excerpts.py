"""From what is kept of a text to the table of excerpts."""

import numpy as np
from jaxtyping import Float32, Int, Int32

from sparse_interp.files.record_files import KINDS
from sparse_interp.records import kept
from sparse_interp.records.running import Running, Sizes


def finish(
  running: Running,
  sizes: Sizes,
  text: Int32[np.ndarray, 'windows time'],
  first: int,
) -> dict[str, np.ndarray]:
  """Statistics and excerpts of units, as `Records` has them.

  Args:
    running: after the whole text.
    sizes: that it was made with.
    text: the same.
    first: index of its first unit among all that are recorded.

  Returns:
    By the name of the field: arrays over units, and arrays over excerpts.
  """
  units = len(running.active)
  silent = running.active < text.size
  edges = np.stack([running.edges(unit) for unit in range(units)])
  columns = []
  for unit in range(units):
    chosen, quantile = _by_quantile(running, sizes, unit, edges[unit])
    for kind, places, rows, parts in (
      ('top', running.top, *_all(running.top, unit)),
      ('quantile', running.sample, chosen, quantile),
      ('random', running.random, *_all(running.random, unit)),
    ):
      number = len(rows)
      columns.append(
        (
          np.full(number, first + unit, np.int32),
          np.full(number, KINDS.index(kind), np.int32),
          parts.astype(np.int32),
          places.place[unit, rows],
          places.values[unit, rows],
        )
      )
  unit, kind, quantile, place, values = (
    np.concatenate(column) for column in zip(*columns, strict=True)
  )
  start = kept.starts(place, sizes.length, sizes.window)
  around = start[:, None] + np.arange(sizes.length)
  return {
    'mean': running.total / text.size,
    'active': running.active / text.size,
    'lowest': np.where(silent, np.minimum(running.lowest, 0), running.lowest),
    'highest': np.where(
      silent, np.maximum(running.highest, 0), running.highest
    ),
    'edges': edges,
    'unit': unit,
    'kind': kind,
    'quantile': quantile,
    'window': (place // sizes.window).astype(np.int32),
    'start': (start % sizes.window).astype(np.int32),
    'position': (place - start).astype(np.int32),
    'tokens': text.reshape(-1)[around],
    'values': values,
  }


def _all(
  places: kept.Kept, unit: int
) -> tuple[Int[np.ndarray, 'rows'], Int[np.ndarray, 'rows']]:
  """All that is kept for a unit, and -1 for each: it has no quantile."""
  rows = np.flatnonzero(places.place[unit] >= 0)
  return rows, np.full(len(rows), -1)


def _by_quantile(
  running: Running,
  sizes: Sizes,
  unit: int,
  edges: Float32[np.ndarray, 'edges'],
) -> tuple[Int[np.ndarray, 'rows'], Int[np.ndarray, 'rows']]:
  """Rows of the sample that a unit's quantiles get, and the quantile of each.

  By quantile, and then by lot.
  """
  rows, _ = _all(running.sample, unit)
  place = running.sample.place[unit, rows]
  within = place - kept.starts(place, sizes.length, sizes.window)
  value = running.sample.values[unit, rows, within]
  quantile = np.searchsorted(edges[1:-1], value, side='right')
  chosen = [[] for _ in range(sizes.quantiles)]
  seen = set()
  for row, part, window in zip(
    rows.tolist(),
    quantile.tolist(),
    (place // sizes.window).tolist(),
    strict=True,
  ):
    if len(chosen[part]) < sizes.per_quantile and (part, window) not in seen:
      seen.add((part, window))
      chosen[part].append(row)
  counts = [len(part) for part in chosen]
  return (
    np.array([row for part in chosen for row in part], np.int64),
    np.repeat(np.arange(sizes.quantiles), counts),
  )
