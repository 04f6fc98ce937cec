"""Rankings of units, without ties.

Clamped gate parameters pile up at their bounds. A ranking by tau alone has
ties there, and a threshold between two ties takes all of them or none: the
bisection jumps over every size in between. Ranks here are a strict order.
"""

import numpy as np
from jaxtyping import Bool, Float, Int


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
