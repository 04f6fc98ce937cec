"""Loss against size: how small a circuit does each of several targets allow?

One ranking of units answers for all targets, so that the curve of a task takes
no more than a few evaluations for each of its points (arXiv 2511.13653 draws
such curves, as geometric means over tasks).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting.answers import (
  answer_by_gates,
  selection_loss,
)
from sparse_interp.circuits.selecting.bisection import Ranked, goal_for
from sparse_interp.circuits.selecting.elimination import eliminate
from sparse_interp.circuits.selecting.judging import judge
from sparse_interp.circuits.selecting.parted import Split
from sparse_interp.circuits.units import Units

# Published task losses in nats, the loosest first.
TARGETS = (0.5, 0.35, 0.15, 0.05, 0.035, 0.015, 0.005)

_MEASURES = (
  'goal',
  'units',
  'nodes',
  'edges',
  'selection_loss',
  'holdout_loss',
)


def curve(
  units: Units,
  order: Int[np.ndarray, 'units'],
  active: int,
  data: Split,
  config: PruneConfig,
  targets: Sequence[float] = TARGETS,
  eliminated: bool = False,
) -> list[dict[str, Any]]:
  """The smallest circuit of one ranking for each target.

  Args:
    units: of the model with its ablation.
    order: their numbers, most important first.
    active: size to begin the first bisection with.
    data: from `parted.part`.
    config: margin and kind of loss; its target is not used.
    targets: losses in nats; each bisection begins where the one before ended.
    eliminated: also try every kept unit alone, as pruning does.

  Returns:
    For each target: `target`; `goal` that was asked of the selection pairs;
    `units`, `nodes` and `edges` of the circuit; `selection_loss`, as the search
    sees it; `holdout_loss`, under the fitted scale and shift. All but the
    target are None where the full model itself misses it on the selection
    pairs.
  """
  config = dataclasses.replace(config, standard_errors=0.0)
  ranked = Ranked(units, order, data.chosen, config)
  whole = gated_model.all_outputs(units.model, {}, data.chosen)
  loss_of = lambda answers: selection_loss(  # noqa: E731
    data.chosen, answers, config
  )
  full_loss, answer = loss_of(whole), answer_by_gates(units)
  points, guess = [], active
  for target in targets:
    if full_loss > target:
      points.append({'target': target, **dict.fromkeys(_MEASURES)})
      continue
    goal = goal_for(target, config.margin, full_loss)
    guess, loss, keep = ranked.smallest(goal, guess)
    if eliminated:
      keep = eliminate(
        units,
        keep,
        data.chosen,
        goal,
        config,
      )
      keep = units.settle(keep)
      loss = loss_of(answer(keep, data.chosen))
    parts = units.parts(keep)
    values = (
      goal,
      int(keep.sum()),
      parts.node_count,
      parts.edge_count,
      loss,
      judge(units, keep, data, config).holdout_loss,
    )
    measures = zip(_MEASURES, values, strict=True)
    points.append({'target': target, **dict(measures)})
  return points


def geometric_mean(edges: Sequence[int]) -> float | None:
  """Of edge counts; a circuit without edges counts as one edge."""
  from scipy import stats  # takes a second, which a start can do without

  return float(stats.gmean(np.maximum(edges, 1))) if len(edges) else None


def geometric_means(
  curves: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
  """Size against target over tasks.

  Args:
    curves: {task: its points, from `curve`}.

  Returns:
    For each target, in the order of the first task that has it: `target`;
    `edges`, the geometric mean over the tasks whose full model reaches it, a
    circuit without edges counting as one edge, or None without such a task;
    and how many `tasks` that are.
  """
  edges: dict[float, list[int]] = {}
  for points in curves.values():
    for point in points:
      reached = edges.setdefault(point['target'], [])
      if point['edges'] is not None:
        reached.append(point['edges'])
  return [
    {
      'target': target,
      'edges': geometric_mean(counts),
      'tasks': len(counts),
    }
    for target, counts in edges.items()
  ]
