"""How many kept units are not needed: a circuit has none, if it is minimal."""

import dataclasses
import math

import numpy as np

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import BATCH
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting.answers import (
  answers_inside,
  worst_loss,
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
  # Errors are those of the mean over all pairs, though few are looked at.
  share = some.size / chosen.size
  errors = config.standard_errors * math.sqrt(share)
  config = dataclasses.replace(config, standard_errors=errors)
  answers = answers_inside(units, keep).each

  def suffices(trial):
    loss = worst_loss(answers, trial, some, config.target_loss, config)
    return loss <= config.target_loss

  def is_necessary(trial):
    least = config.min_necessity
    if least is None:
      return True
    return rest_loss(units, trial, some, config.bounded)[0] >= least

  count = 0
  for unit in np.flatnonzero(keep):
    trial = keep.copy()
    trial[unit] = False
    count += suffices(trial) and is_necessary(trial)
  return count
