"""From a ranking of units to a circuit, whatever made the ranking.

Learned masks, attribution and chance are judged alike: the shortest top of the
ranking that meets the target, then what else can be left out of it, and among
the circuits tried the smallest one that also holds on pairs it has not seen.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_interp.circuits import gated_model, selection
from sparse_interp.circuits.answers import answer_by_gates, selection_loss
from sparse_interp.circuits.bisection import Ranked, goal_for
from sparse_interp.circuits.elimination import eliminate
from sparse_interp.circuits.gated_model import GatedModel
from sparse_interp.circuits.necessity import add_until_necessary
from sparse_interp.circuits.parts import parts_of, settle
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.pruning import Optimized, Progress
from sparse_interp.circuits.unfinished import Unfinished, question

# Pairs that scale and shift are fitted on, besides the selection pairs.
CALIBRATION_PAIRS = 128

# Elimination also starts this share of the way from the full model to the goal.
_ROOM = 0.1
# ... unless that is more units than it can try in a minute or so.
_LARGEST = 128


class Unprunable(ValueError):  # noqa: N818
  """No circuit for this target: the full model misses it, or nothing meets it.

  The message is one line for users, as those of other ValueErrors.
  """


class Split(NamedTuple):
  """Training data in its three parts, each with the full model's answers."""

  fitting: Any
  chosen: Any
  holdout: Any


class PruneResult(NamedTuple):
  """What the search on training pairs came to.

  Attributes:
    keep: which units are kept, flat in the order of `sizes`.
    sizes: {key: number of units}.
    scores: {key: rank of every unit in (0, 1], no two alike}.
    scale: calibration, see `losses.calibration`.
    shift: calibration.
    history: of the optimisation.
    search: what happened after it: the goal of each attempt, and size and
      holdout loss of each circuit that it tried.
  """

  keep: Bool[np.ndarray, 'units']
  sizes: dict[str, int]
  scores: dict[str, Float[np.ndarray, '_']]
  scale: float
  shift: float
  history: dict[str, list]
  search: list[dict[str, Any]]


class Tried(NamedTuple):
  """A circuit with its calibration, on pairs that did not choose it."""

  keep: Bool[np.ndarray, 'units']
  edges: int
  scale: float
  shift: float
  holdout_loss: float


def part(model: GatedModel, train: Any, config: PruneConfig) -> Split:
  """Pairs for learning gates, for the search, and held out from both.

  Raises:
    ValueError: if there are too few of them.
  """
  seen = config.selection_pairs + config.holdout_pairs
  if train.size - seen < config.batch_pairs:
    raise ValueError(
      'prune.selection_pairs + prune.holdout_pairs + prune.batch_pairs must be '
      f'at most the number of training pairs, {train.size}, got '
      f'{seen + config.batch_pairs}; encode more pairs or lower one of them.'
    )
  if config.kl_weight > 0 or config.target_on == 'kl':
    train = gated_model.add_full(model, train)
  indices = np.arange(train.size)
  chosen = train.take(indices[: config.selection_pairs])
  holdout = train.take(indices[config.selection_pairs : seen])
  return Split(
    train.take(indices[seen:]),
    chosen,
    holdout if config.holdout_pairs else chosen,
  )


def units_of(model: GatedModel, config: PruneConfig) -> dict[str, int]:
  """{key: number of units} that a configuration puts gates on."""
  return gated_model.unit_sizes(
    model, config.gates, config.final_resid, config.tie_qk
  )


def rank_units(
  learned: Optimized, sizes: Mapping[str, int]
) -> tuple[Int[np.ndarray, 'units'], int]:
  """Units from most to least important, and how many gates are on."""
  tau = selection.flatten(learned.tau, sizes)
  tau_mean = selection.flatten(learned.tau_mean, sizes)
  return selection.rank(tau, tau_mean), int((tau > 0).sum())


def check_full_loss(
  model: GatedModel, chosen: Any, config: PruneConfig
) -> float:
  """Loss of the full model on the selection pairs.

  Raises:
    Unprunable: if the full model itself misses the target.
  """
  answers = gated_model.all_outputs(model, {}, chosen)
  loss = selection_loss(chosen, answers, config.calibrate, config.target_on)
  if loss > config.target_loss:
    raise Unprunable(
      "prune.target_loss must be at least the full model's loss on training "
      f'pairs, {loss:.3f}, got {config.target_loss}; train the model longer or '
      'raise the target.'
    )
  return loss


def select(
  model: GatedModel,
  order: Int[np.ndarray, 'units'],
  first_guess: int,
  sizes: Mapping[str, int],
  data: Split,
  config: PruneConfig,
  progress: Progress | None = None,
  unfinished: Unfinished | None = None,
) -> PruneResult:
  """The smallest circuit that a ranking leads to and that holds on the holdout.

  Args:
    model: the model with its ablation.
    order: units, most important first.
    first_guess: size to begin the bisection with.
    sizes: {key: number of units}.
    data: from `part`.
    config: target, margin and what refines the bisected circuit.
    progress: called now and then with what there is to show.
    unfinished: keeps what was measured, and has what the same search, when it
      was interrupted, had measured.

  Returns:
    Of all circuits tried, the one with the fewest edges among those that meet
    the target on the holdout pairs; without any, the one with the smallest
    loss there.

  Raises:
    Unprunable: if the full model itself misses the target, or if it is met
      when everything is removed.
  """
  full_loss = check_full_loss(model, data.chosen, config)
  unfinished = unfinished or Unfinished()
  ranked = Ranked(model, order, sizes, data.chosen, config, unfinished)
  _check_empty_loss(ranked.loss(np.zeros(order.size, bool)), config)
  goal = goal_for(config.target_loss, config.margin, full_loss)
  tried, attempts = [], []
  for _ in range(config.attempts):
    k, _, keep = ranked.smallest(goal, max(1, first_guess))
    circuits = _refinements(
      *(model, ranked, keep, sizes, data, goal, full_loss, config, progress),
      unfinished,
    )
    tried += [
      Tried(
        keep,
        *unfinished.recall(
          question('judge', keep),
          lambda keep=keep: [*judge(model, keep, sizes, data, config)[1:]],
        ),
      )
      for keep in circuits
    ]
    new = tried[-len(circuits) :]
    attempts.append(
      {
        'goal': goal,
        'bisected_units': k,
        'units': [int(one.keep.sum()) for one in new],
        'edges': [one.edges for one in new],
        'holdout_loss': [one.holdout_loss for one in new],
      }
    )
    # The bisected circuit comes last: it alone is not what was asked for.
    excess = (
      min(one.holdout_loss for one in (new[:-1] or new)) - config.target_loss
    )
    if excess <= 0:
      break
    # Closer to the full model, never beyond what it can do.
    goal = max(goal - excess - 0.01, (full_loss + goal) / 2)
  found = _best(tried, config.target_loss)
  return PruneResult(
    found.keep,
    dict(sizes),
    selection.split(selection.scores(order), sizes),
    found.scale,
    found.shift,
    {'step': [], 'task_loss': [], 'active': []},
    attempts,
  )


def judge(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
  data: Split,
  config: PruneConfig,
) -> Tried:
  """Calibrates a circuit and measures its loss on the holdout pairs.

  Scale and shift are two numbers, but with a large scale a few rare pairs
  decide them: they are fitted on more pairs than the search looks at.
  """
  answer = answer_by_gates(model, sizes)
  count = min(CALIBRATION_PAIRS, data.fitting.size)
  calibrating = data.fitting.take(np.arange(count))
  seen = [answer(keep, data.chosen), answer(keep, calibrating)]
  scale, shift = (float(x) for x in data.chosen.calibrate(np.concatenate(seen)))
  losses = data.holdout.losses(
    answer(keep, data.holdout), scale, shift, float(config.target_on == 'kl')
  )
  edges = parts_of(model, keep, sizes).edge_count
  return Tried(keep, edges, scale, shift, float(losses.mean()))


def _check_empty_loss(loss: float, config: PruneConfig):
  if loss <= config.target_loss:
    raise Unprunable(
      'prune.target_loss must be less than the loss when all is removed, '
      f'{loss:.3f}, got {config.target_loss}: the empty circuit meets '
      'it; choose a lower target.'
    )


def _best(tried: list[Tried], target: float) -> Tried:
  holding = [one for one in tried if one.holdout_loss <= target]
  if holding:
    return min(holding, key=lambda one: one.edges)
  return min(tried, key=lambda one: one.holdout_loss)


def _refinements(
  model,
  ranked,
  keep,
  sizes,
  data,
  goal,
  full_loss,
  config,
  progress,
  unfinished,
):
  """Circuits to judge: eliminated from one or two starts, then the bisected."""
  circuits = []
  if config.eliminate:
    # Where nothing is to spare, a greedy search soon has no way to go: it
    # also starts from a circuit that is closer to the full model.
    _, _, larger = ranked.smallest(
      full_loss + _ROOM * (goal - full_loss), max(1, int(keep.sum()))
    )
    starts = [keep, larger] if larger.sum() <= _LARGEST else [keep]
    circuits = [
      eliminate(
        model,
        start,
        sizes,
        data.chosen,
        goal,
        config.calibrate,
        config.target_on,
        _show_what_is_left(progress, f'{i + 1} of {len(starts)}'),
        unfinished,
      )
      for i, start in enumerate(starts)
    ]
  circuits.append(keep)
  if config.min_necessity is not None:
    circuits = [
      add_until_necessary(
        *(model, circuit, sizes, data.chosen, config.min_necessity),
        unfinished,
      )
      for circuit in circuits
    ]
  return [settle(model, circuit, sizes) for circuit in circuits]


def _show_what_is_left(progress, which):
  """Of one elimination; there may be another, and further attempts."""

  def show(left):
    if progress is not None:
      numbers = {'phase': 'eliminate', 'start': which}
      numbers |= {'nodes': left.nodes, 'edges': left.edges}
      if left.number:
        numbers['pass'] = left.number
      if left.seconds is not None:
        numbers['about_seconds_left'] = left.seconds
      progress(numbers)

  return show
