"""Rankings without learned gates: the baselines that masks are held against.

Each gives every unit a score, and `order` turns scores into the strict order
that `from_ranking.select` builds a circuit from, as it does from learned masks.

  attribution  nodes: |(x - value) . dL/dx|, at the full model: the ranking by
               gradient attribution of arXiv 2511.13653 (its figure 31)
  eap          edges or nodes: -dL/dgate at the full model, the first-order
               estimate of what removal costs (arXiv 2310.10348)
  eap_ig       the same slope, integrated while all gates rise together from 0
               to 1 (arXiv 2403.17806, with a path along gates, not inputs)
  greedy       groups in reverse order of the forward pass, each dropped if the
               loss hardly grows (arXiv 2304.14997)
  random       a permutation

Slopes are summed over positions and averaged over all data with their signs.
`attribution` then takes the absolute value; `eap` and `eap_ig` keep the sign,
so that a unit whose removal lowers the loss ranks last. Both conventions are
in use elsewhere, and published numbers differ by which one was meant.

A loss that is flat at the full model, such as any distance from its own
outputs, gives `attribution` and `eap` nothing to go by; `eap_ig` copes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_interp.circuits import selection
from sparse_interp.circuits.gated_model import (
  BATCH,
  GatedModel,
  gate_slopes,
  gates_of_units,
  on_edges,
  slopes_of_units,
)

# Scores by unit, flat in the order of the sizes.
Scores = Float[np.ndarray, 'units']

IG_STEPS = 5


def order(scores: Scores) -> Int[np.ndarray, 'units']:
  """Units from most to least important; of equal ones, the first is first."""
  return selection.rank(scores, np.zeros_like(scores))


def mean_slopes(
  model: GatedModel, data: Any, sizes: Mapping[str, int], level: float = 1.0
) -> Scores:
  """Slope of the mean loss in every unit, while all gates are at one level.

  Gates enter by themselves: where all edges into a node have gates, the node
  has none that would follow from them.

  Args:
    model: the model with its ablation.
    data: Pairs or Recorded.
    sizes: {key: number of units}, from `gated_model.unit_sizes`.
    level: of the gates.

  Returns:
    float64 (units,).
  """
  gates = {
    key: jnp.full(size, level, jnp.float32) for key, size in sizes.items()
  }
  total = 0.0
  # Parts of at most two shapes, so of two compilations.
  parts = np.array_split(np.arange(data.size), math.ceil(data.size / BATCH))
  for part in parts:
    slopes = slopes_of_units(
      gate_slopes(model, gates_of_units(gates), data.take(part))
    )
    share = part.size / data.size
    total = total + share * selection.flatten(slopes, sizes).astype(np.float64)
  return total


def attribution(
  model: GatedModel, data: Any, sizes: Mapping[str, int]
) -> Scores:
  """Gradient attribution of nodes: |sum of (x - value) . dL/dx|.

  Args:
    model: the model with its ablation, whose values are the reference.
    data: training Pairs or Recorded; the loss must have a slope.
    sizes: {site: number of nodes}.

  Raises:
    ValueError: if units are edges: the published ranking is of nodes.
  """
  if on_edges(sizes):
    raise ValueError(
      "gates must be 'nodes' for attribution, got 'edges'; use eap for edges."
    )
  return np.abs(mean_slopes(model, data, sizes))


def eap(model: GatedModel, data: Any, sizes: Mapping[str, int]) -> Scores:
  """Edge attribution patching: estimated cost of every removal, signed.

  Args:
    model: the model with its ablation: a constant one, or that of the
      counterfactual prompts of the original method.
    data: training Pairs or Recorded; the loss must have a slope.
    sizes: {key: number of units}, edges or nodes.
  """
  return -mean_slopes(model, data, sizes)


def eap_ig(
  model: GatedModel,
  data: Any,
  sizes: Mapping[str, int],
  steps: int = IG_STEPS,
) -> Scores:
  """Integrated slopes by the midpoint rule, signed.

  With many steps, the scores add up to the loss with all units removed less
  that of the full model.

  Args:
    model: the model with its ablation.
    data: training Pairs or Recorded.
    sizes: {key: number of units}, edges or nodes.
    steps: gates take the levels (i + 1/2) / steps.

  Raises:
    ValueError: if there is no step.
  """
  if steps < 1:
    raise ValueError(f'steps must be at least 1, got {steps}; choose e.g. 5.')
  levels = (np.arange(steps) + 0.5) / steps
  slopes = [mean_slopes(model, data, sizes, float(one)) for one in levels]
  return -np.mean(slopes, axis=0)


def random(sizes: Mapping[str, int], seed: int) -> Scores:
  """A permutation of 1 ... units."""
  rng = np.random.default_rng(seed)
  return rng.permutation(sum(sizes.values())) + 1.0


def greedy(
  groups: Sequence[Bool[np.ndarray, 'units']],
  loss: Callable[[Bool[np.ndarray, 'units']], float],
  tolerances: Sequence[float],
) -> Float[np.ndarray, 'groups']:
  """Drops groups from last to first while the loss hardly grows (ACDC).

  A round visits every group that is left and drops it if the loss grows by
  less than the round's tolerance. Rounds follow each other, each going on with
  what the last one left, so that one search gives a ranking.

  Args:
    groups: units of each group, in the order of the forward pass; units may
      be single, or whole component edges. Units in no group stay.
    loss: of a mask of kept units, without any further clean-up.
    tolerances: increasing.

  Returns:
    Score of each group: the tolerance of the round that dropped it, inf for
    those that were never dropped.

  Raises:
    ValueError: if tolerances do not increase, or there is no group.
  """
  if not len(groups) or np.any(np.diff(tolerances) <= 0):
    raise ValueError(
      'greedy must have groups and increasing tolerances, got '
      f'{len(groups)} groups and {list(tolerances)}; sort the tolerances.'
    )
  keep = np.ones(groups[0].size, bool)
  scores = np.full(len(groups), np.inf)
  now = loss(keep)
  for tolerance in tolerances:
    for i in reversed(range(len(groups))):
      if scores[i] < np.inf:
        continue
      trial = keep & ~groups[i]
      after = loss(trial)
      if after - now < tolerance:
        keep, now, scores[i] = trial, after, tolerance
  return scores
