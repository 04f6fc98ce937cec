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
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import BATCH, gate_slopes
from sparse_interp.circuits.ranking import ranks
from sparse_interp.circuits.units import Units, untie

# Scores by unit.
Scores = Float[np.ndarray, 'units']

IG_STEPS = 5


def order(scores: Scores) -> Int[np.ndarray, 'units']:
  """Units from most to least important; of equal ones, the first is first."""
  return ranks.rank(scores, np.zeros_like(scores))


def mean_slopes(units: Units, data: Batch, level: float = 1.0) -> Scores:
  """Slope of the mean loss in every unit, while all gates are at one level.

  Gates enter by themselves: where all edges into a node have gates, the node
  has none that would follow from them.

  Args:
    units: of the model.
    data: pairs or sequences.
    level: of the gates.

  Returns:
    float64 (units,).
  """
  gates = untie(units.filled(level))
  total = 0.0
  # Parts of at most two shapes, so of two compilations.
  parts = np.array_split(np.arange(data.size), math.ceil(data.size / BATCH))
  for part in parts:
    slopes = units.slopes(gate_slopes(units.model, gates, data.take(part)))
    total = total + part.size / data.size * slopes.astype(np.float64)
  return total


def attribution(units: Units, data: Batch) -> Scores:
  """Gradient attribution of nodes: |sum of (x - value) . dL/dx|.

  Args:
    units: nodes of the model, whose values are the reference.
    data: training pairs or sequences; the loss must have a slope.

  Raises:
    ValueError: if units are edges: the published ranking is of nodes.
  """
  if units.on_edges:
    raise ValueError(
      "gates must be 'nodes' for attribution, got 'edges'; use eap for edges."
    )
  return np.abs(mean_slopes(units, data))


def eap(units: Units, data: Batch) -> Scores:
  """Edge attribution patching: estimated cost of every removal, signed.

  Args:
    units: edges or nodes of a model with its ablation: a constant one, or
      that of the counterfactual prompts of the original method.
    data: training pairs or sequences; the loss must have a slope.
  """
  return -mean_slopes(units, data)


def eap_ig(units: Units, data: Batch, steps: int = IG_STEPS) -> Scores:
  """Integrated slopes by the midpoint rule, signed.

  With many steps, the scores add up to the loss with all units removed less
  that of the full model.

  Args:
    units: edges or nodes of the model.
    data: training pairs or sequences.
    steps: gates take the levels (i + 1/2) / steps.

  Raises:
    ValueError: if there is no step.
  """
  if steps < 1:
    raise ValueError(f'steps must be at least 1, got {steps}; choose e.g. 5.')
  levels = (np.arange(steps) + 0.5) / steps
  slopes = [mean_slopes(units, data, float(one)) for one in levels]
  return -np.mean(slopes, axis=0)


def random(units: Units, seed: int) -> Scores:
  """A permutation of 1 ... units."""
  rng = np.random.default_rng(seed)
  return rng.permutation(units.count) + 1.0


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
