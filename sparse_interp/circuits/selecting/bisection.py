"""The smallest circuit that the top of a ranking makes, for any goal.

Every size asked for is answered once: several goals, or several questions
about one ranking, share their evaluations of the model.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking.ranks import top
from sparse_interp.circuits.selecting.answers import (
  answer_by_gates,
  worst_loss,
)
from sparse_interp.circuits.unfinished import Unfinished, question
from sparse_interp.circuits.units import Mask, Units

# Of a mask of kept units.
Loss = Callable[[Bool[np.ndarray, 'units']], float]


def goal_for(target: float, margin: float, full_loss: float) -> float:
  """Loss to reach on selection pairs so that unseen pairs reach the target.

  Args:
    target: loss that the circuit is for, in nats.
    margin: how far below it to stay.
    full_loss: loss of the full model; the goal is never closer to it than
      half of the way, which leaves something to remove.
  """
  return max(target - margin, (full_loss + target) / 2)


def bisect(
  order: Int[np.ndarray, 'units'],
  loss: Loss,
  target: float,
  first_guess: int | None = None,
) -> int:
  """Finds a small k such that the first k units meet the target.

  Loss need not fall with k: where removed parts take values that carry an
  answer of their own, a unit that is put back alone may hurt until many others
  are. Going up from a k that misses, or down from one that meets, then ends
  anywhere. So sizes of a grid, the powers of two and the guess, are looked at
  from the smallest one, and the first that meets the target is refined by
  bisection: with N units, at most 2 log2(N) + 3 evaluations.

  Args:
    order: units, most important first; keeping all must meet the target.
    loss: task loss of a mask of kept units.
    target: largest loss allowed.
    first_guess: a k that is worth a look, such as the number of active gates.

  Returns:
    k with three properties: the first k units meet the target, without the
    last of them they do not, and no size of the grid below k does. Where loss
    falls with k, there is one such k. 0 if the empty circuit meets the target.
  """
  meets = lambda k: loss(top(order, k)) <= target  # noqa: E731
  low, high = -1, order.size
  for k in _grid(order.size, first_guess):
    if meets(k):
      high = k
      break
    low = k
  while high - low > 1:
    middle = (low + high) // 2
    if meets(middle):
      high = middle
    else:
      low = middle
  return high


def _grid(count: int, guess: int | None) -> list[int]:
  """0, powers of two below `count`, and the guess, each once, ascending."""
  powers = [2**i for i in range(count.bit_length())]
  sizes = {0, *powers, *([] if guess is None else [guess])}
  return sorted(k for k in sizes if 0 <= k < count)


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
    self._answers = [answer_by_gates(one) for one in reversed(units.by_kind())]

  def loss(self, keep: Mask) -> float:
    """Largest loss of a circuit under the ablations of the model.

    It is measured once however often it is asked for, and under no further
    ablation once it is beyond the target, as goals never are.
    """
    config = self._config
    return self._unfinished.recall(
      question('first', keep),
      lambda: worst_loss(
        *(self._answers, keep, self._batch, config.target_loss, config)
      ),
    )

  def smallest(self, goal: float, first_guess: int) -> tuple[int, float, Mask]:
    """Bisects for a goal.

    Args:
      goal: largest loss allowed; keeping all units must meet it.
      first_guess: size to begin with, see `bisect`.

    Returns:
      How many units, their loss, and the circuit that they make.
    """
    k = bisect(self._order, self.loss, goal, max(1, first_guess))
    keep = top(self._order, k)
    return k, self.loss(keep), self._units.settle(keep)
