"""Records as their definitions say, from all activations, one by one.

Nothing is shared with the package: lots are computed by integers of Python, and
everything is found by sorting all that there is.
"""

import hashlib
import struct

import numpy as np

_MASK = 2**64 - 1
_ODD = 0xBF58476D1CE4E5B9


def mixed(number):
  x = (number + 0x9E3779B97F4A7C15) & _MASK
  x = ((x ^ x >> 30) * _ODD) & _MASK
  x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
  return x ^ x >> 31


def key_of(*words):
  digest = hashlib.sha256('\0'.join(map(str, words)).encode()).digest()
  return int.from_bytes(digest[:8], 'little')


def lot(key, number):
  return (mixed(number) ^ key) * _ODD & _MASK


def rounded_down(value):
  """To the least float32 that has the same first 16 bits."""
  bits = struct.unpack('<I', struct.pack('<f', value))[0]
  bits = bits & 0xFFFF0000 if value > 0 else bits | 0xFFFF
  return struct.unpack('<f', struct.pack('<I', bits))[0]


def edges_of(values, quantiles):
  """Of the nonzero activations."""
  if not values:
    return [0.0] * (quantiles + 1)
  values = sorted(values)
  inner = [
    max(rounded_down(values[j * len(values) // quantiles]), values[0])
    for j in range(1, quantiles)
  ]
  return [values[0], *inner, values[-1]]


def excerpts_of(name, rows, edges, *, top, per_quantile, random, seed):
  """(kind, quantile, window, place in the window) in the order of the table.

  Args:
    name: of the unit.
    rows: (windows, time) activations of it.
    edges: of its quantiles.
    top: number of excerpts.
    per_quantile: the same, of each quantile.
    random: the same.
    seed: of lots.
  """
  windows, time = rows.shape
  quantiles = len(edges) - 1
  best = []
  for window, row in enumerate(rows.tolist()):
    there = [value for value in row if value]
    if there:
      best.append((-max(there), window, row.index(max(there))))
  table = [(0, -1, window, place) for _, window, place in sorted(best)[:top]]

  key = key_of(seed, name, 'quantile')
  places = [
    (lot(key, window * time + place), window, place)
    for window in range(windows)
    for place in range(time)
    if rows[window, place]
  ]
  sampled = quantiles * (24 + 8 * per_quantile)
  for quantile in range(quantiles):
    taken = []
    for _, window, place in sorted(places)[:sampled]:
      value = rows[window, place]
      mine = sum(value >= edge for edge in edges[1:-1]) == quantile
      if mine and window not in [one[2] for one in taken]:
        taken.append((1, quantile, window, place))
    table += taken[:per_quantile]

  key = key_of(seed, name, 'random')
  lots = sorted((lot(key, window), window) for window in range(windows))
  for number, window in lots[:random]:
    table.append((2, -1, window, mixed(number ^ key) % time))
  return table


def start_of(place, length, time):
  return min(max(place - 3 * length // 4, 0), time - length)


def assert_as_defined(records, activations, text):
  """Compares records with what they have to be.

  Args:
    records: of all units.
    activations: (units, windows, time), all of them.
    text: (windows, time) tokens.
  """
  table, time = [], text.shape[1]
  for unit, (name, rows) in enumerate(
    zip(records.units, activations, strict=True)
  ):
    values = [value for value in rows.ravel().tolist() if value]
    edges = edges_of(values, records.quantiles)
    np.testing.assert_array_equal(records.edges[unit], np.float32(edges))
    assert records.active[unit] == len(values) / rows.size
    assert records.lowest[unit] == rows.min()
    assert records.highest[unit] == rows.max()
    np.testing.assert_allclose(
      records.mean[unit], rows.astype(np.float64).mean(), rtol=1e-12, atol=1e-12
    )
    chosen = excerpts_of(
      name,
      rows,
      edges,
      top=records.top,
      per_quantile=records.per_quantile,
      random=records.random,
      seed=records.seed,
    )
    table += [(unit, *row) for row in chosen]
  place = records.start + records.position
  columns = (
    records.unit,
    records.kind,
    records.quantile,
    records.window,
    place,
  )
  assert list(zip(*(c.tolist() for c in columns), strict=True)) == table
  for row, (unit, _, _, window, where) in enumerate(table):
    start = start_of(where, records.length, time)
    around = slice(start, start + records.length)
    assert records.start[row] == start
    np.testing.assert_array_equal(records.tokens[row], text[window, around])
    np.testing.assert_array_equal(
      records.values[row], activations[unit, window, around]
    )
