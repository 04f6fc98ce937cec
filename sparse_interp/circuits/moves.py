"""What elimination tries to leave out in one step: units, and units together.

A head that attends everywhere keeps its queries and keys if they can only be
left out one by one: without one of them it no longer attends everywhere,
without all of them it does again. The same holds for the inputs of a neuron
that stands for a conjunction. So whole heads, whole matrices and all edges at
one node are tried, too.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Int

from sparse_interp.circuits.gated_model import GatedModel

Units = Int[np.ndarray, '_']


def moves(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
) -> list[Units]:
  """Kept units to leave out together, every set of them once.

  Single units; all units of a site or matrix, by head where there are heads;
  with gates on edges, all edges at one node, and those of them in one matrix.

  Args:
    model: the model.
    keep: the circuit.
    sizes: {key: number of units}.
  """
  found = {(unit,): None for unit in np.flatnonzero(keep).tolist()}
  for group in _groups(model, keep, sizes):
    if group:
      found[tuple(sorted(group))] = None
  return [np.array(group) for group in found]


def _groups(model, keep, sizes) -> Iterator[list[int]]:
  at_node, start = {}, 0
  for key, size in sizes.items():
    kept = np.flatnonzero(keep[start : start + size])
    units = kept + start
    yield from _by_number(units, _heads(model, key, size)[kept]).values()
    if '->' in key:
      ends = np.asarray(model.edges[key])[:, kept]
      for site, channels in zip(key.split('->'), ends, strict=True):
        for channel, group in _by_number(units, channels).items():
          at_node.setdefault((site, channel), []).extend(group)
          yield group
    start += size
  yield from at_node.values()


def _heads(model, key, size):
  """Number of the head of each unit; 0 where there are no heads."""
  source, _, target = key.partition('->')
  width = model.config.d_head
  if '->' in key:
    rows, columns = np.asarray(model.edges[key])
    if source.endswith('attn.v'):
      return rows // width
    return columns // width if '.attn.' in target else np.zeros(size, int)
  heads = key.endswith(('attn.q', 'attn.k', 'attn.v', 'attn.qk'))
  return np.arange(size) // width * heads


def _by_number(units, numbers):
  """{number: the units that have it}."""
  groups = {}
  for unit, number in zip(units.tolist(), numbers.tolist(), strict=True):
    groups.setdefault(number, []).append(unit)
  return groups
