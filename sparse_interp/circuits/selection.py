"""From a ranking of nodes to the smallest circuit that meets a target loss.

Clamped gate parameters pile up at their bounds. A ranking by tau alone has
ties there, and a threshold between two ties takes all of them or none: the
bisection jumps over every size in between. Ranks here are a strict order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

# Nodes are numbered through all sites, in the order of the sites.
Loss = Callable[[Bool[np.ndarray, 'nodes']], float]


def flatten(by_site: Mapping, sites: Iterable[str]) -> np.ndarray:
  """Joins {site: (width,)} to one vector over all nodes."""
  return np.concatenate([np.asarray(by_site[site]) for site in sites])


def split(flat: np.ndarray, sites: Mapping[str, int]) -> dict[str, np.ndarray]:
  """Inverse of `flatten`."""
  ends = np.cumsum(list(sites.values()))
  return dict(zip(sites, np.split(flat, ends[:-1]), strict=True))


def rank(
  tau: Float[np.ndarray, 'nodes'], tau_mean: Float[np.ndarray, 'nodes']
) -> Int[np.ndarray, 'nodes']:
  """Orders nodes from most to least important, without ties.

  Args:
    tau: final gate parameters; they decide.
    tau_mean: means of tau over the optimisation; they decide between nodes
      that ended at the same bound: the one that got to the upper bound
      earlier, or to the lower bound later, comes first.

  Returns:
    Node numbers; nodes equal in both are in the order of their numbers.
  """
  index = np.arange(tau.size)
  return np.lexsort((index, -tau_mean, -tau))


def scores(order: Int[np.ndarray, 'nodes']) -> Float[np.ndarray, 'nodes']:
  """Score of each node in (0, 1]: the share of nodes that rank no higher."""
  result = np.empty(order.size, np.float32)
  result[order] = np.arange(order.size, 0, -1) / order.size
  return result


def top(order: Int[np.ndarray, 'nodes'], k: int) -> Bool[np.ndarray, 'nodes']:
  """Mask of the first k nodes of a ranking."""
  keep = np.zeros(order.size, bool)
  keep[order[:k]] = True
  return keep


def bisect(
  order: Int[np.ndarray, 'nodes'],
  loss: Loss,
  target: float,
  first_guess: int | None = None,
) -> int:
  """Finds a k such that the first k nodes meet the target and k - 1 do not.

  Loss is not monotone in k, so there may be several such k; each is minimal
  in the sense that dropping its lowest-ranked node misses the target.

  Args:
    order: nodes, most important first; keeping all must meet the target.
    loss: task loss of a mask of kept nodes.
    target: largest loss allowed.
    first_guess: a k to begin with, such as the number of active gates: the
      search doubles or halves from there, and stays away from large k.

  Returns:
    k; 0 if even the empty circuit meets the target.
  """
  meets = lambda k: loss(top(order, k)) <= target  # noqa: E731
  low, high = -1, order.size
  guess = first_guess
  while high - low > 1:
    if guess is None or not low < guess < high:
      guess = (low + high) // 2
    if meets(guess):
      high, grow = guess, False
    else:
      low, grow = guess, True
    if first_guess is None:
      guess = None
    elif grow and high == order.size:
      guess = max(2 * low, low + 1)
    elif not grow and low == -1:
      guess = high // 2
    else:
      guess = None
  return high


def random_like(
  nodes: Mapping[str, Sequence[int] | np.ndarray],
  sites: Mapping[str, int],
  seed: int,
) -> dict[str, Float[np.ndarray, '_']]:
  """Gates of a random circuit with as many nodes at each site as `nodes`."""
  rng = np.random.default_rng(seed)
  gates = {}
  for site, width in sites.items():
    gates[site] = np.zeros(width, np.float32)
    count = len(nodes.get(site, ()))
    gates[site][rng.choice(width, count, replace=False)] = 1
  return gates


def gates_of(
  nodes: Mapping[str, Sequence[int] | np.ndarray], sites: Mapping[str, int]
) -> dict[str, Float[np.ndarray, '_']]:
  """Gates that keep exactly `nodes`."""
  gates = {site: np.zeros(width, np.float32) for site, width in sites.items()}
  for site, kept in nodes.items():
    gates[site][np.asarray(kept, int)] = 1
  return gates


def nodes_of(
  keep: Bool[np.ndarray, 'nodes'], sites: Mapping[str, int]
) -> dict[str, Int[np.ndarray, '_']]:
  """Sorted channel numbers of the kept nodes at every site."""
  return {
    site: np.flatnonzero(mask) for site, mask in split(keep, sites).items()
  }
