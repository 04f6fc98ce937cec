"""From a ranking of units to the smallest circuit that meets a target loss.

Clamped gate parameters pile up at their bounds. A ranking by tau alone has
ties there, and a threshold between two ties takes all of them or none: the
bisection jumps over every size in between. Ranks here are a strict order.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

# Of a mask of kept units, numbered as in `units`.
Loss = Callable[[Bool[np.ndarray, 'units']], float]


def rank(
  tau: Float[np.ndarray, 'units'], tau_mean: Float[np.ndarray, 'units']
) -> Int[np.ndarray, 'units']:
  """Orders units from most to least important, without ties.

  Args:
    tau: final gate parameters; they decide.
    tau_mean: means of tau over the optimisation; they decide between units
      that ended at the same bound: the one that got to the upper bound
      earlier, or to the lower bound later, comes first.

  Returns:
    Unit numbers; units equal in both are in the order of their numbers.
  """
  index = np.arange(tau.size)
  return np.lexsort((index, -tau_mean, -tau))


def scores(order: Int[np.ndarray, 'units']) -> Float[np.ndarray, 'units']:
  """Score of each unit in (0, 1]: the share of units that rank no higher."""
  result = np.empty(order.size, np.float32)
  result[order] = np.arange(order.size, 0, -1) / order.size
  return result


def top(order: Int[np.ndarray, 'units'], k: int) -> Bool[np.ndarray, 'units']:
  """Mask of the first k units of a ranking."""
  keep = np.zeros(order.size, bool)
  keep[order[:k]] = True
  return keep


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
