"""How many kept units are not needed: a circuit has none, if it is minimal."""

import numpy as np

from sparse_interp.circuits.gating.ablation import CONSTANT
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import BATCH
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting.answers import (
  answer_by_gates,
  answer_by_small_model,
  selection_loss,
)
from sparse_interp.circuits.selecting.necessity import rest_loss
from sparse_interp.circuits.units import Mask, Units

# With more units than this it would take minutes.
MOST_UNITS = 512


def count_droppable(
  units: Units, keep: Mask, chosen: Batch, config: PruneConfig
) -> int:
  """Kept units of which each could be left out alone.

  The rest still reaches the target under every ablation, and the model without
  the rest still loses what was asked for.

  Args:
    units: of the model.
    keep: the circuit.
    chosen: pairs of the search; the first BATCH of them say so.
    config: what was asked for.
  """
  some = chosen.take(np.arange(min(BATCH, chosen.size)))
  answers = [
    answer_by_small_model(one, keep)
    if one.model.ablation in CONSTANT
    else answer_by_gates(one)
    for one in units.by_kind()
  ]
  count = 0
  for unit in np.flatnonzero(keep):
    trial = keep.copy()
    trial[unit] = False
    count += all(
      selection_loss(
        some, answer(trial, some), config.calibrate, config.target_on
      )
      <= config.target_loss
      for answer in answers
    ) and (
      config.min_necessity is None
      or rest_loss(units, trial, some, config.bounded)[0]
      >= config.min_necessity
    )
  return count
