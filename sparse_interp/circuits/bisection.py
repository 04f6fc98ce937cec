"""The smallest circuit that the top of a ranking makes, for any goal.

Every size asked for is answered once: several goals, or several questions
about one ranking, share their evaluations of the model.
"""

import numpy as np
from jaxtyping import Int

from sparse_interp.circuits import selection
from sparse_interp.circuits.answers import answer_by_gates, selection_loss
from sparse_interp.circuits.batch import Batch
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.unfinished import Unfinished, question
from sparse_interp.circuits.units import Mask, Units


def goal_for(target: float, margin: float, full_loss: float) -> float:
  """Loss to reach on selection pairs so that unseen pairs reach the target.

  Args:
    target: loss that the circuit is for, in nats.
    margin: how far below it to stay.
    full_loss: loss of the full model; the goal is never closer to it than
      half of the way, which leaves something to remove.
  """
  return max(target - margin, (full_loss + target) / 2)


class Ranked:
  """Circuits that are the first k units of one ranking."""

  def __init__(
    self,
    units: Units,
    order: Int[np.ndarray, 'units'],
    batch: Batch,
    config: PruneConfig,
    unfinished: Unfinished | None = None,
  ):
    """Computes nothing yet.

    Args:
      units: of the model.
      order: their numbers, most important first.
      batch: pairs or sequences that losses are measured on.
      config: says which loss.
      unfinished: keeps the losses for a search that is interrupted.
    """
    self._unfinished = unfinished or Unfinished()
    self._units, self._order = units, order
    self._batch, self._config = batch, config
    self._answer = answer_by_gates(units)

  def loss(self, keep: Mask) -> float:
    """Loss of a circuit, measured once however often it is asked for."""
    return self._unfinished.recall(
      question('first', keep),
      lambda: selection_loss(
        self._batch,
        self._answer(keep, self._batch),
        self._config.calibrate,
        self._config.target_on,
      ),
    )

  def smallest(self, goal: float, first_guess: int) -> tuple[int, float, Mask]:
    """Bisects for a goal.

    Args:
      goal: largest loss allowed; keeping all units must meet it.
      first_guess: size to begin with, see `selection.bisect`.

    Returns:
      How many units, their loss, and the circuit that they make.
    """
    k = selection.bisect(self._order, self.loss, goal, max(1, first_guess))
    keep = selection.top(self._order, k)
    return k, self.loss(keep), self._units.settle(keep)
