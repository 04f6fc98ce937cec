"""Drops interlocked units together: what no single removal can reach.

A head that attends everywhere keeps its queries and keys if they can only be
left out one by one: without one of them it no longer attends everywhere,
without all of them it does again. The same holds for the inputs of a neuron
that stands for a conjunction. So whole matrices, and all edges of one node, are
tried, too.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool

from sparse_interp.circuits import selection
from sparse_interp.circuits.gated_model import GatedModel

Keep = Bool[np.ndarray, 'units']


def groups_of(model: GatedModel, sizes: Mapping[str, int]) -> Iterator[Keep]:
  """Units to be tried together: later ones first, large groups first.

  All units of a site, or all edges of a matrix by head; with gates on edges,
  then all edges that enter, and all that leave, one node of a matrix.

  Args:
    model: the model.
    sizes: {key: number of units}.
  """
  for key in reversed(sizes):
    yield from _by_number(sizes, key, _heads(model, key, sizes[key]))
  for key in reversed(sizes):
    if '->' in key:
      for ends in np.asarray(model.edges[key])[::-1]:
        yield from _by_number(sizes, key, ends)


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


def _by_number(sizes, key, numbers):
  for number in np.unique(numbers)[::-1]:
    chosen = {key: np.flatnonzero(numbers == number)}
    yield selection.mask_of(chosen, sizes)


def eliminate_groups(
  model: GatedModel,
  keep: Keep,
  sizes: Mapping[str, int],
  loss: Callable[[Keep], float],
  target: float,
) -> Keep:
  """Drops groups while the target is met, until none can be dropped.

  Args:
    model: the model with its ablation.
    keep: the circuit.
    sizes: {key: number of units}.
    loss: of a mask of kept units.
    target: largest loss allowed.

  Returns:
    The circuit that is left.
  """
  groups = [group for group in groups_of(model, sizes) if group.any()]
  while True:
    before = int(keep.sum())
    for group in groups:
      trial = keep & ~group
      if trial.sum() < keep.sum() and loss(trial) <= target:
        keep = trial
    if keep.sum() == before:
      return keep
