"""The smallest circuit that the top of a ranking makes, for any goal.

Every size asked for is answered once: several goals, or several questions
about one ranking, share their evaluations of the model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from sparse_interp.circuits import selection
from sparse_interp.circuits.answers import answer_by_gates, selection_loss
from sparse_interp.circuits.gated_model import GatedModel
from sparse_interp.circuits.parts import settle
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.unfinished import Unfinished, question


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
    model: GatedModel,
    order: Int[np.ndarray, 'units'],
    sizes: Mapping[str, int],
    batch: Any,
    config: PruneConfig,
    unfinished: Unfinished | None = None,
  ):
    """Computes nothing yet.

    Args:
      model: the model with its ablation.
      order: units, most important first.
      sizes: {key: number of units}.
      batch: Pairs or Recorded that losses are measured on.
      config: says which loss.
      unfinished: keeps the losses for a search that is interrupted.
    """
    self._unfinished = unfinished or Unfinished()
    self._model, self._order, self._sizes = model, order, sizes
    self._batch, self._config = batch, config
    self._answer = answer_by_gates(model, sizes)
    self._losses = {}

  def loss(self, keep: Bool[np.ndarray, 'units']) -> float:
    """Loss of the first k units, given as their mask."""
    k = int(keep.sum())
    if k not in self._losses:
      self._losses[k] = self._unfinished.recall(
        question('first', keep),
        lambda: selection_loss(
          self._batch,
          self._answer(keep, self._batch),
          self._config.calibrate,
          self._config.target_on,
        ),
      )
    return self._losses[k]

  def smallest(
    self, goal: float, first_guess: int
  ) -> tuple[int, float, Bool[np.ndarray, 'units']]:
    """Bisects for a goal.

    Args:
      goal: largest loss allowed; keeping all units must meet it.
      first_guess: size to begin with, see `selection.bisect`.

    Returns:
      How many units, their loss, and the circuit that they make.
    """
    k = selection.bisect(self._order, self.loss, goal, max(1, first_guess))
    keep = selection.top(self._order, k)
    return k, self.loss(keep), settle(self._model, keep, self._sizes)
