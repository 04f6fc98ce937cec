"""Losses of a circuit under ablations that are drawn, with their intervals.

Removed parts come back in half of all random subsets: what a circuit lacks
comes back with them, so that a draw or two are a coin toss. They are drawn
often, and their spread is part of the interval.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from sparse_interp.circuits import intervals
from sparse_interp.circuits.counting import Count
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.circuits.units import Mask, Units

_SUBSETS = 16


def draws(units: Units) -> int:
  """How often answers under the ablation of these units are asked for."""
  return _SUBSETS if units.model.ablation == 'subsets' else 1


def drawn_answers(
  units: Units, keep: Mask, batch: Batch, count: Count | None = None
) -> Iterator[Float[np.ndarray, 'size ...']]:
  """Answers of a circuit, in one draw after another.

  Args:
    units: of the model under one ablation.
    keep: the circuit.
    batch: pairs or sequences.
    count: called after every batch, see `gated_model.all_outputs`.
  """
  for seed in range(draws(units)):
    yield answer_by_gates(units, count, seed)(keep, batch)


def interval(
  losses: Float[np.ndarray, 'draws size'], seed: int
) -> intervals.Interval:
  """95 % interval of the mean over draws, if there are several, and pairs."""
  if len(losses) > 1:
    return intervals.over_draws(losses)
  return intervals.of_mean(losses[0], seed)
