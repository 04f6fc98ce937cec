"""From a ranking of units to a circuit, whatever made the ranking.

Learned masks, attribution and chance are judged alike: the shortest top of the
ranking that meets the target, then what else can be left out of it, and among
the circuits tried the smallest one that also holds on pairs it has not seen.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import ranks
from sparse_interp.circuits.ranking.pruning import Optimized
from sparse_interp.circuits.selecting.answers import selection_loss
from sparse_interp.circuits.selecting.bisection import Ranked, goal_for
from sparse_interp.circuits.selecting.judging import Tried, best, judge
from sparse_interp.circuits.selecting.parted import Split
from sparse_interp.circuits.selecting.refining import complete, refinements
from sparse_interp.circuits.unfinished import Unfinished, question
from sparse_interp.circuits.units import Mask, Units


class Unprunable(ValueError):  # noqa: N818
  """No circuit for this target: the full model misses it, or nothing meets it.

  The message is one line for users, as those of other ValueErrors.
  """


class PruneResult(NamedTuple):
  """What the search on training pairs came to.

  Attributes:
    units: of the model.
    keep: which of them are kept.
    scores: {key: rank of every unit in (0, 1], no two alike}.
    scale: calibration, see `losses.calibration`.
    shift: calibration.
    history: of the optimisation.
    search: what happened after it: the goal of each attempt, and size and
      holdout loss of each circuit that it tried.
  """

  units: Units
  keep: Mask
  scores: dict[str, Float[np.ndarray, '_']]
  scale: float
  shift: float
  history: dict[str, list]
  search: list[dict[str, Any]]


def units_of(model: GatedModel, config: PruneConfig) -> Units:
  """The units that a configuration puts gates on."""
  return units_lib.make(model, config.gates, config.final_resid, config.tie_qk)


def rank_units(
  learned: Optimized, units: Units
) -> tuple[Int[np.ndarray, 'units'], int]:
  """Units from most to least important, and how many gates are on."""
  tau = units.flatten(learned.tau)
  tau_mean = units.flatten(learned.tau_mean)
  return ranks.rank(tau, tau_mean), int((tau > 0).sum())


def check_full_loss(
  model: GatedModel, chosen: Batch, config: PruneConfig
) -> tuple[float, PruneConfig]:
  """Loss of the full model on the selection pairs, and what can be asked there.

  The configuration is the given one; without standard errors, where the full
  model reaches its target only without them.

  Raises:
    Unprunable: if the full model itself misses the target.
  """
  answers = gated_model.all_outputs(model, {}, chosen)
  certain = selection_loss(chosen, answers, config)
  if certain <= config.target_loss:
    return certain, config
  mean = dataclasses.replace(config, standard_errors=0.0)
  loss = selection_loss(chosen, answers, mean)
  if loss > config.target_loss:
    raise Unprunable(
      "target_loss must be at least the full model's loss on training "
      f'pairs, {loss:.3f}, got {config.target_loss}; train the model longer or '
      'raise the target.'
    )
  return loss, mean


def select(
  units: Units,
  order: Int[np.ndarray, 'units'],
  first_guess: int,
  data: Split,
  config: PruneConfig,
  progress: Progress | None = None,
  unfinished: Unfinished | None = None,
) -> PruneResult:
  """The smallest circuit that a ranking leads to and that holds on the holdout.

  Args:
    units: of the model with its ablation.
    order: their numbers, most important first.
    first_guess: size to begin the bisection with.
    data: from `parted.part`.
    config: target, margin and what refines the bisected circuit.
    progress: called now and then with what there is to show.
    unfinished: keeps what was measured, and has what the same search, when it
      was interrupted, had measured.

  Returns:
    Of all circuits tried, the one with the fewest edges among those that meet
    the target on the holdout pairs by the end of the interval; without any, the
    one that comes closest.

  Raises:
    Unprunable: if the full model itself misses the target, or if it is met
      when everything is removed.
  """
  full_loss, config = check_full_loss(units.model, data.chosen, config)
  unfinished = unfinished or Unfinished()
  ranked = Ranked(units, order, data.chosen, config, unfinished)
  _check_empty_loss(ranked.loss(np.zeros(order.size, bool)), config)
  goal = goal_for(config.target_loss, config.margin, full_loss)

  def judged(circuit):
    keep = complete(units, circuit, data, config, unfinished)
    return Tried(
      keep,
      *unfinished.recall(
        question('judge', keep), lambda: [*judge(units, keep, data, config)[1:]]
      ),
    )

  tried, attempts = [], []
  for _ in range(config.attempts):
    k, _, keep = ranked.smallest(goal, max(1, first_guess))
    new = [
      judged(circuit)
      for circuit in refinements(
        *(units, ranked, keep, data, goal, full_loss, config, progress),
        unfinished,
      )
    ]
    closest = min((one.holdout_high for one in new), default=np.inf)
    # What the bisection found is larger, and only of use where nothing else is.
    if closest > config.target_loss:
      new.append(judged(keep))
    tried += new
    attempts.append(
      {
        'goal': goal,
        'bisected_units': k,
        'units': [int(one.keep.sum()) for one in new],
        'edges': [one.edges for one in new],
        'holdout_loss': [one.holdout_loss for one in new],
        'holdout_high': [one.holdout_high for one in new],
      }
    )
    # The bisected circuit alone is not what was asked for.
    if not config.eliminate:
      closest = new[-1].holdout_high
    if closest <= config.target_loss:
      break
    # Closer to the full model by the factor that was missing; not by more than
    # half of the way, since few units more or less are to be had there.
    goal = max(goal * config.target_loss / closest, (full_loss + goal) / 2)
  found = best(tried, config.target_loss)
  return PruneResult(
    units,
    found.keep,
    units.split(ranks.scores(order)),
    found.scale,
    found.shift,
    {'step': [], 'task_loss': [], 'active': []},
    attempts,
  )


def _check_empty_loss(loss: float, config: PruneConfig):
  if loss <= config.target_loss:
    raise Unprunable(
      'target_loss must be less than the loss when all is removed, '
      f'{loss:.3f}, got {config.target_loss}: the empty circuit meets '
      'it; choose a lower target.'
    )
