"""Which of several circuits is the best, by pairs that have not chosen them."""

from typing import NamedTuple

import numpy as np

from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.circuits.selecting.drawn import drawn_answers, interval
from sparse_interp.circuits.selecting.parted import Split
from sparse_interp.circuits.units import Mask, Units

# Pairs that scale and shift are fitted on, besides the selection pairs.
CALIBRATION_PAIRS = 128


class Tried(NamedTuple):
  """A circuit with its calibration, on pairs that did not choose it.

  Attributes:
    keep: the circuit.
    edges: how many it has.
    scale: calibration.
    shift: calibration.
    holdout_loss: loss on the holdout pairs, the largest of several ablations.
    holdout_high: end of its 95 % interval, the largest of several, too: found
      is what meets the target by it.
  """

  keep: Mask
  edges: int
  scale: float
  shift: float
  holdout_loss: float
  holdout_high: float


def judge(units: Units, keep: Mask, data: Split, config: PruneConfig) -> Tried:
  """Calibrates a circuit and measures its loss on the holdout pairs.

  Scale and shift are two numbers, but with a large scale a few rare pairs
  decide them: they are fitted on more pairs than the search looks at. Several
  ablations have to do with one fit, and the largest loss counts.
  """
  answers = [answer_by_gates(one) for one in units.by_kind()]
  count = min(CALIBRATION_PAIRS, data.fitting.size)
  calibrating = data.fitting.take(np.arange(count))
  seen = [
    answer(keep, batch)
    for answer in answers
    for batch in (data.chosen, calibrating)
  ]
  scale, shift = (
    float(x)
    for x in data.chosen.calibrate(np.concatenate(seen), data.most_shift)
  )
  kl_weight = float(config.target_on == 'kl')

  def measure(one):
    losses = np.stack(
      [
        np.asarray(data.holdout.losses(found, scale, shift, kl_weight))
        for found in drawn_answers(one, keep, data.holdout)
      ]
    )
    return float(losses.mean()), interval(losses, seed=0)[1]

  losses, ends = zip(*map(measure, units.by_kind()), strict=True)
  edges = units.parts(keep).edge_count
  return Tried(keep, edges, scale, shift, max(losses), max(ends))


def best(tried: list[Tried], target: float) -> Tried:
  """The smallest of those that hold; without any, the closest to it."""
  holding = [one for one in tried if one.holdout_high <= target]
  if holding:
    return min(holding, key=lambda one: one.edges)
  return min(tried, key=lambda one: one.holdout_high)
