"""Puts nodes in rows so that few edges cross.

The layered drawing of Sugiyama, with one difference: what runs along the
residual stream is a track over several columns, and a track has one row.
"""

import numpy as np

_SWEEPS = 30


def assign_rows(
  column: np.ndarray,
  group: np.ndarray,
  track: np.ndarray,
  in_stream: np.ndarray,
  edges: np.ndarray,
) -> np.ndarray:
  """Returns (n,) float64 rows from 0 at the top, the best of some sweeps.

  Tracks of the residual stream stand on whole rows, other nodes half a row
  lower: a straight line along the stream then never runs through a node.

  Args:
    column: (n,) int column of each node.
    group: (n,) int; within a column, lower groups stand above higher ones.
    track: (n,) int; nodes of one track share a row. Only nodes in the stream
      may share a track.
    in_stream: (n,) bool, nodes of the residual stream.
    edges: (m, 2) int node numbers.
  """
  if not len(column):
    return np.zeros(0)
  streams = np.unique(track[in_stream])
  first = {t: column[track == t].min() for t in streams}
  last = {t: column[track == t].max() for t in streams}
  wanted = np.arange(track.max() + 1, dtype=float)
  best, fewest = np.zeros(len(column)), np.inf
  for _ in range(_SWEEPS):
    # Tracks are numbered in forward order, which also breaks ties.
    order = sorted(streams, key=lambda t: (wanted[t], t))
    rows = np.zeros(len(wanted))
    for t, row in zip(order, _pack(order, first, last), strict=True):
      rows[t] = row
    placed = np.isin(np.arange(len(rows)), streams)
    pull = _neighbour_mean(rows, placed, track, edges)
    for c in np.unique(column[~in_stream]):
      members = track[~in_stream & (column == c)]
      groups = group[~in_stream & (column == c)]
      members = members[np.lexsort((pull[members], groups))]
      rows[members] = np.floor(_spread(pull[members])) + 0.5
    cost = _crossings(rows[track], column, edges)
    if cost < fewest:
      best, fewest = rows[track], cost
    wanted = _neighbour_mean(rows, np.ones(len(rows), bool), track, edges)
  return best - np.floor(best.min())


def _pack(order: list, first: dict, last: dict) -> list[int]:
  """Drops tracks one after the other to the highest row free of overlap."""
  depth = np.zeros(max(last.values(), default=0) + 1, int)
  rows = []
  for t in order:
    span = slice(first[t], last[t] + 1)
    rows.append(int(depth[span].max()))
    depth[span] = rows[-1] + 1
  return rows


def _neighbour_mean(
  rows: np.ndarray, placed: np.ndarray, track: np.ndarray, edges: np.ndarray
) -> np.ndarray:
  """Returns per track the mean row of placed neighbours, else its own row."""
  total, count = np.zeros(len(rows)), np.zeros(len(rows))
  ends = track[edges].reshape(-1, 2)
  for here, there in (ends.T, ends.T[::-1]):
    use = placed[there]
    np.add.at(total, here[use], rows[there[use]])
    np.add.at(count, here[use], 1)
  return np.where(count > 0, total / np.maximum(count, 1), rows)


def _spread(wanted: np.ndarray) -> np.ndarray:
  """Moves points the least (in squares) so that each is >= 1 past the last.

  What is left of each once its index is taken off may then only grow.
  """
  from scipy import optimize  # takes a second, which a start can do without

  index = np.arange(len(wanted))
  return optimize.isotonic_regression(wanted - index).x + index


def _crossings(y: np.ndarray, column: np.ndarray, edges: np.ndarray) -> float:
  """Returns the number of crossings, and a little for the length of edges."""
  source, target = edges.reshape(-1, 2).T
  gap = column[source] * (column.max() + 1) + column[target]
  same = gap[:, None] == gap[None, :]
  cross = (y[source][:, None] - y[source]) * (y[target][:, None] - y[target])
  length = np.abs(y[source] - y[target]).sum()
  return float((same & (cross < 0)).sum() / 2 + 0.02 * length)
