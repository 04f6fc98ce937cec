"""Hyper-parameter search for pruning, anew for every model and task.

As in the paper (arXiv 2511.13653, section A.5), which takes 32 iterations of 8
jobs side by side. An iteration here is one vmapped optimisation of as many jobs
as are asked for; `search_space` says what they try.

Objective: edges of the smallest circuit that reaches the goal on the selection
pairs, by bisection of the ranking and without elimination, which would cost
more than the optimisation; of circuits with equally many edges, the one with
the smaller loss. Holdout and test pairs have no say. What all trials share is
the seed of gates and batches: only the hyper-parameters differ, and the best
ones give the best ranking again, to rounding.
"""

import math
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking.pruning import Optimized, optimize_together
from sparse_interp.circuits.selecting.bisection import Ranked, goal_for
from sparse_interp.circuits.selecting.from_ranking import (
  check_full_loss,
  rank_units,
  units_of,
)
from sparse_interp.circuits.selecting.parted import Split, part
from sparse_interp.circuits.tuning.search_journal import Journal, Ranking
from sparse_interp.circuits.tuning.search_space import configure, propose
from sparse_interp.circuits.unfinished import identity
from sparse_interp.circuits.units import Units
from sparse_interp.files import pace


class SearchResult(NamedTuple):
  """What a search came to; `from_ranking.select` makes a circuit from it.

  Attributes:
    best_config: hyper-parameters of the best trial.
    best_order: units as `from_ranking.units_of` numbers them, most important
      first.
    best_active: how many gates were on.
    trials: of each, in order: `trial` (number), `params` (what was searched),
      `units`, `nodes`, `edges`, `loss` on the selection pairs, `value` (the
      objective), and `seconds` (its share of the iteration).
  """

  best_config: PruneConfig
  best_order: Int[np.ndarray, 'units']
  best_active: int
  trials: list[dict[str, Any]]


def objective(edges: int, loss: float) -> float:
  """Logarithm of 1 + edges, with a fraction of an edge for the loss.

  The fraction is below 1: it decides between equal numbers of edges only.

  Args:
    edges: of the circuit.
    loss: of the circuit, at least 0.
  """
  return math.log(1 + edges + loss / (1 + loss))


def search(
  model: GatedModel,
  train: Batch,
  base: PruneConfig,
  trials: int,
  parallel: int,
  seed: int,
  directory: pathlib.Path | None = None,
  progress: Progress | None = None,
) -> SearchResult:
  """Tunes the hyper-parameters of pruning for one model and task.

  Trial 0 is `base`, so that the result is never worse. Called again with the
  same arguments after it was interrupted, it goes on with the first iteration
  that was not finished and ends with the same result; with more trials, it
  goes on from where it ended.

  Args:
    model: the model with its ablation.
    train: training pairs or sequences; parted by `parted.part`.
    base: where the search starts, and what it leaves alone.
    trials: how many configurations to try.
    parallel: how many of them at once; memory grows with it.
    seed: of proposals, gates and batches.
    directory: for `search_journal`; None writes nothing.
    progress: called now and then with what there is to show.

  Returns:
    The best configuration, its ranking, and all trials.

  Raises:
    ValueError: a number is below 1, there are too few pairs, the full model
      misses the target, the directory holds another search, or Optuna is not
      installed.
    OSError: the directory cannot be written.
  """
  for name, value in (('trials', trials), ('parallel', parallel)):
    if value < 1:
      raise ValueError(
        f'{name} must be at least 1, got {value}; choose e.g. 8.'
      )
  units = units_of(model, base)
  data = part(model, train, base)
  full_loss, asked = check_full_loss(model, data.chosen, base)
  goal = goal_for(base.target_loss, base.margin, full_loss)
  journal = Journal(directory, identity(model, {'train': train}, base, seed))
  began, before = time.monotonic(), len(journal.trials)
  while len(journal.trials) < trials:
    known = len(journal.trials)
    results = [(trial['params'], trial['value']) for trial in journal.trials]
    count = min(parallel, trials - known)
    proposals = propose(base, results, count, seed)
    start = time.monotonic()
    learned = _learn(units, data, base, proposals, parallel, seed, progress)
    share = (time.monotonic() - start) / count
    finished, rankings = [], []
    for i, (params, optimized) in enumerate(
      zip(proposals, learned, strict=True)
    ):
      start = time.monotonic()
      rankings.append(rank_units(optimized, units))
      scored = _score(units, rankings[-1], data, goal, asked)
      seconds = share + time.monotonic() - start
      finished.append(
        {'trial': known + i, 'params': params, **scored, 'seconds': seconds}
      )
    journal.append(finished, rankings)
    if progress is not None:
      done = len(journal.trials)
      progress(
        {
          'phase': 'search',
          'trial': done,
          'trials': trials,
          'edges': _best(journal.trials)['edges'],
          'seconds_left': pace.seconds_left(
            began, done - before, trials - before
          ),
        }
      )
  asked = journal.trials[:trials]
  best = _best(asked)
  order, active = journal.ranking(best['trial'])
  return SearchResult(configure(base, best['params']), order, active, asked)


def _best(trials):
  """Of equal objectives the first."""
  return min(trials, key=lambda trial: trial['value'])


def _learn(
  units: Units,
  data: Split,
  base: PruneConfig,
  proposals: list[dict[str, float]],
  parallel: int,
  seed: int,
  progress: Progress | None,
) -> list[Optimized]:
  """One compiled call; filled up with the first job, it keeps its shape."""
  filled = proposals + proposals[:1] * (parallel - len(proposals))
  jobs = [(data.fitting, configure(base, params), seed) for params in filled]
  return optimize_together(units, jobs, progress)[: len(proposals)]


def _score(
  units: Units,
  ranking: Ranking,
  data: Split,
  goal: float,
  base: PruneConfig,
) -> dict[str, Any]:
  """Size, loss and objective of the circuit that a ranking leads to.

  Where no part of the ranking reaches the goal, that is the whole model.
  """
  order, active = ranking
  ranked = Ranked(units, order, data.chosen, base)
  _, loss, keep = ranked.smallest(goal, active)
  parts = units.parts(keep)
  return {
    'units': int(keep.sum()),
    'nodes': parts.node_count,
    'edges': parts.edge_count,
    'loss': loss,
    'value': objective(parts.edge_count, loss),
  }
