"""What elimination tries to leave out in one step: units, and units together.

A head that attends everywhere keeps its queries and keys if they can only be
left out one by one: without one of them it no longer attends everywhere,
without all of them it does again. The same holds for the inputs of a neuron
that stands for a conjunction. So whole heads, whole matrices and all edges at
one node are tried, too.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from sparse_interp.circuits.units import Mask, Units
from sparse_interp.models.sites import (
  edge_ends,
  has_heads,
  is_matrix,
  tied_sites,
)


def moves(units: Units, keep: Mask) -> list[Int[np.ndarray, '_']]:
  """Kept units to leave out together, every set of them once.

  Single units; all units of a site or matrix, by head where there are heads;
  with gates on edges, all edges at one node, and those of them in one matrix.

  Args:
    units: of the model.
    keep: the circuit.
  """
  found = {(unit,): None for unit in np.flatnonzero(keep).tolist()}
  for group in _groups(units, keep):
    if group:
      found[tuple(sorted(group))] = None
  return [np.array(group) for group in found]


def _groups(units, keep) -> Iterator[list[int]]:
  model, at_node, start = units.model, {}, 0
  for key, size in units.sizes.items():
    kept = np.flatnonzero(keep[start : start + size])
    own = kept + start
    yield from _by_number(own, _heads(model, key, size)[kept]).values()
    if is_matrix(key):
      ends = np.asarray(model.edges[key])[:, kept]
      for site, channels in zip(edge_ends(key), ends, strict=True):
        for channel, group in _by_number(own, channels).items():
          at_node.setdefault((site, channel), []).extend(group)
          yield group
    start += size
  yield from at_node.values()


def _heads(model, key, size):
  """Number of the head of each unit; 0 where there are no heads."""
  sites, channels = tied_sites(key), np.arange(size)[None]
  if is_matrix(key):
    sites, channels = edge_ends(key), np.asarray(model.edges[key])
  for site, own in zip(sites, channels, strict=False):
    if has_heads(site):
      return own // model.config.d_head
  return np.zeros(size, int)


def _by_number(units, numbers):
  """{number: the units that have it}."""
  groups = {}
  for unit, number in zip(units.tolist(), numbers.tolist(), strict=True):
    groups.setdefault(number, []).append(unit)
  return groups
