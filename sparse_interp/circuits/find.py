"""From a model and a task to a measured circuit: the whole search in order."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sparse_interp.circuits import gated_model, selection
from sparse_interp.circuits.ablation import constants
from sparse_interp.circuits.bisection import Ranked, goal_for
from sparse_interp.circuits.circuit import Circuit, hash_params, list_edges
from sparse_interp.circuits.elimination import (
  answer_by_gates,
  eliminate,
  selection_loss,
)
from sparse_interp.circuits.examples import make_examples
from sparse_interp.circuits.faithfulness import FORMULAS, evaluate
from sparse_interp.circuits.gated_model import GatedModel
from sparse_interp.circuits.losses import KL_LOSS, TASK_LOSS
from sparse_interp.circuits.necessity import add_until_necessary
from sparse_interp.circuits.parts import parts_of, settle
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.pruning import Optimized, Progress, optimize
from sparse_interp.circuits.task_loss import make_pairs
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import node_sites
from sparse_interp.tasks.encoding import EncodedTask

Means = Mapping[str, Float[np.ndarray | Array, '_']]
Pieces = Callable[[Sequence[int]], list[str]]

# Pairs that scale and shift are fitted on, besides the selection pairs.
CALIBRATION_PAIRS = 128

# Elimination starts this share of the way from the full model to the goal.
_ROOM = 0.1
# ... unless that is more units than it can try in a minute or so.
_LARGEST = 128


class Unprunable(ValueError):  # noqa: N818
  """No circuit for this target: the full model misses it, or nothing meets it.

  The message is one line for users, as those of other ValueErrors.
  """


class PruneResult(NamedTuple):
  """What the search on training pairs came to.

  Attributes:
    keep: which units are kept, flat in the order of `sizes`.
    sizes: {key: number of units}.
    scores: {key: rank of every unit in (0, 1], no two alike}.
    scale: calibration, see `calibration`.
    shift: calibration.
    history: of the optimisation.
    search: what happened after it: goal, losses and sizes of each attempt.
  """

  keep: Bool[np.ndarray, 'units']
  sizes: dict[str, int]
  scores: dict[str, Float[np.ndarray, '_']]
  scale: float
  shift: float
  history: dict[str, list]
  search: list[dict[str, Any]]


class Split(NamedTuple):
  """Training data in its three parts, each with the full model's answers."""

  fitting: Any
  chosen: Any
  holdout: Any


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
) -> PruneResult:
  """The smallest circuit that a ranking leads to, whatever made the ranking.

  Args:
    model: the model with its ablation.
    order: units, most important first.
    first_guess: size to begin the bisection with.
    sizes: {key: number of units}.
    data: from `part`.
    config: target, margin and what refines the bisected circuit.
    progress: called now and then with what there is to show.

  Raises:
    Unprunable: if the full model itself misses the target, or if it is met
      when everything is removed.
  """
  full_loss = check_full_loss(model, data.chosen, config)
  answer = answer_by_gates(model, sizes)
  ranked = Ranked(model, order, sizes, data.chosen, config)
  empty_loss = ranked.loss(np.zeros(order.size, bool))
  if empty_loss <= config.target_loss:
    raise Unprunable(
      'prune.target_loss must be less than the loss when all is removed, '
      f'{empty_loss:.3f}, got {config.target_loss}: the empty circuit meets '
      'it; choose a lower target.'
    )
  calibrating = data.fitting.take(
    np.arange(min(CALIBRATION_PAIRS, data.fitting.size))
  )
  goal = goal_for(config.target_loss, config.margin, full_loss)
  attempts, guess = [], max(1, first_guess)
  for _ in range(config.attempts):
    k, _, keep = ranked.smallest(goal, guess)
    starts = [keep]
    if config.eliminate:
      # Where nothing is to spare, a greedy search soon has no way to go: it
      # also starts from a circuit that is closer to the full model.
      near = ranked.smallest(full_loss + _ROOM * (goal - full_loss), guess)[0]
      if near <= _LARGEST:
        starts.append(selection.top(order, near))
    refined = [
      settle(
        model,
        _refine(model, keep, sizes, data.chosen, goal, config, progress),
        sizes,
      )
      for keep in starts
    ]
    keep = min(
      refined, key=lambda keep: parts_of(model, keep, sizes).edge_count
    )
    # Two numbers, but with a large scale a few rare pairs decide them.
    shown = np.concatenate(
      [answer(keep, data.chosen), answer(keep, calibrating)]
    )
    scale, shift = (float(x) for x in data.chosen.calibrate(shown))
    losses = data.holdout.losses(
      answer(keep, data.holdout), scale, shift, float(config.target_on == 'kl')
    )
    attempt = {
      'goal': goal,
      'bisected_units': k,
      'units': int(keep.sum()),
      'holdout_loss': float(losses.mean()),
    }
    attempts.append((attempt['holdout_loss'], keep, scale, shift, attempt))
    excess = attempt['holdout_loss'] - config.target_loss
    if excess <= 0:
      break
    # Closer to the full model, never beyond what it can do.
    goal = max(goal - excess - 0.01, (full_loss + goal) / 2)
  # The last attempt, if it held, is the one with the smallest loss.
  _, keep, scale, shift, _ = min(attempts, key=lambda attempt: attempt[0])
  return PruneResult(
    keep,
    dict(sizes),
    selection.split(selection.scores(order), sizes),
    scale,
    shift,
    {'step': [], 'task_loss': [], 'active': []},
    [attempt for *_, attempt in attempts],
  )


def prune(
  model: GatedModel,
  train: Any,
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
) -> PruneResult:
  """Finds the smallest circuit it can that meets the target loss.

  The training pairs are parted: gates are learned on the last ones, the
  search measures its loss on the first `selection_pairs`, and the next
  `holdout_pairs` say whether its result holds on pairs it has not seen.

  Args:
    model: the model with its ablation.
    train: training Pairs or Recorded.
    prune_config: hyper-parameters.
    seed: of gates and batches.
    progress: called now and then with what there is to show.

  Returns:
    Units, ranking, calibration and history.

  Raises:
    ValueError: if there are too few pairs, or if the full model itself misses
      the target on the selection pairs, or the empty circuit meets it.
  """
  sizes = units_of(model, prune_config)
  data = part(model, train, prune_config)
  check_full_loss(model, data.chosen, prune_config)
  learned = optimize(model, data.fitting, sizes, prune_config, seed, progress)
  order, active = rank_units(learned, sizes)
  found = select(model, order, active, sizes, data, prune_config, progress)
  return found._replace(history=learned.history)


def _refine(model, keep, sizes, chosen, goal, config, progress):
  """Drops what is not needed, then adds what necessity asks for."""

  def show(nodes_left, edges_left):
    if progress is not None:
      progress({'phase': 'eliminate', 'nodes': nodes_left, 'edges': edges_left})

  if config.eliminate:
    keep = eliminate(
      model,
      keep,
      sizes,
      chosen,
      goal,
      config.calibrate,
      config.target_on,
      show,
    )
  if config.min_necessity is not None:
    keep = add_until_necessary(model, keep, sizes, chosen, config.min_necessity)
  return keep


def find_circuit(
  config: GPTConfig,
  params: dict,
  means: Means,
  train_task: EncodedTask,
  test_task: EncodedTask,
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
  provenance: Mapping[str, Any] | None = None,
  pieces: Pieces | None = None,
  description: str = '',
  mean_tokens: int = 0,
  example_pairs: int = 6,
) -> Circuit:
  """Prunes on training pairs and measures on test pairs.

  Args:
    config: the model.
    params: its parameters.
    means: {site: mean over pretraining text}, as from `site_means`.
    train_task: pairs for everything that is fitted or chosen.
    test_task: pairs for the metrics only.
    prune_config: hyper-parameters.
    seed: of gates, batches, random circuits and bootstrap.
    progress: called now and then with a mapping: phase, step, steps,
      task_loss, active, nodes, edges, seconds_left, as far as they apply.
    provenance: added to seed and params_hash in the artifact.
    pieces: printable pieces of token ids; their decimal numbers without it.
    description: of the task, for people.
    mean_tokens: number of tokens behind `means`.
    example_pairs: test pairs kept as examples.

  Returns:
    The circuit with its metrics; see `circuit` and `faithfulness`.

  Raises:
    ValueError: see `prune`.
  """
  train, test = make_pairs(train_task), make_pairs(test_task)
  values = constants(config, params, means, prune_config.ablation, train)
  model = gated_model.make(config, params, values, prune_config.ablation)
  found = prune(model, train, prune_config, seed, progress)
  parts = parts_of(model, found.keep, found.sizes)
  if progress is not None:
    progress(
      {'phase': 'measure', 'nodes': parts.node_count, 'edges': parts.edge_count}
    )
  metrics = evaluate(
    model,
    found.keep,
    found.sizes,
    (found.scale, found.shift),
    train.take(np.arange(prune_config.selection_pairs)),
    test,
    test_task.conditions,
    seed,
  )
  examples, tokens, activations = make_examples(
    model,
    parts.nodes,
    (found.scale, found.shift),
    lambda pairs: answer_by_gates(model, found.sizes)(found.keep, pairs),
    test_task,
    test,
    example_pairs,
    pieces,
  )
  sites = node_sites(config, prune_config.final_resid)
  return Circuit(
    task=test_task.name,
    description=description,
    config=config,
    gates=prune_config.gates,
    sites=sites,
    nodes=parts.nodes,
    edges=list_edges(config, params, model.edges, parts, sites),
    means={
      site: np.asarray(value)
      for site, value in model.values.items()
      if site in sites or site not in node_sites(config)
    },
    scores=found.scores,
    scale=found.scale,
    shift=found.shift,
    ablation={
      'kind': prune_config.ablation,
      'over': _OVER[prune_config.ablation],
      'tokens': mean_tokens,
    },
    formula={'task_loss': TASK_LOSS, 'kl_loss': KL_LOSS, **FORMULAS},
    metrics=metrics,
    prune_config={**dataclasses.asdict(prune_config), 'search': found.search},
    history={
      'step': found.history['step'],
      'task_loss': found.history['task_loss'],
      prune_config.gates: found.history['active'],
    },
    examples=examples,
    example_tokens=tokens,
    activations=activations,
    provenance={
      **(provenance or {}),
      'seed': seed,
      'params_hash': hash_params(params),
    },
  )


_OVER = {
  'mean': 'pretraining',
  'task_mean': 'training prompts of the task',
  'zero': 'nothing',
  'resample': 'other training prompts',
  'counterfactual': 'the other prompt of the pair',
  'subsets': 'pretraining',
}
