"""From a model and a task to a measured circuit: the whole search in order."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits import calibration, selection
from sparse_interp.circuits.circuit import Circuit, find_edges, hash_params
from sparse_interp.circuits.elimination import eliminate, selection_loss
from sparse_interp.circuits.faithfulness import FORMULAS, evaluate
from sparse_interp.circuits.necessity import add_until_necessary
from sparse_interp.circuits.pruning import Progress, PruneConfig, optimize
from sparse_interp.circuits.task_loss import (
  TASK_LOSS,
  Pairs,
  differences_in_batches,
  make_pairs,
  pair_losses,
)
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import node_sites
from sparse_interp.tasks.encoding import EncodedTask

Means = Mapping[str, Float[np.ndarray | Array, '_']]
Pieces = Callable[[Sequence[int]], list[str]]


# Pairs that scale and shift are fitted on, besides the selection pairs.
_CALIBRATION_PAIRS = 128


class PruneResult(NamedTuple):
  """What the search on training pairs came to.

  Attributes:
    nodes: {site: kept channels, ascending}.
    scores: {site: rank of every node in (0, 1], no two alike}.
    scale: calibration, see `calibration`.
    shift: calibration.
    history: of the optimisation.
    search: what happened after it: goal, losses and sizes of each attempt.
  """

  nodes: dict[str, Int[np.ndarray, '_']]
  scores: dict[str, Float[np.ndarray, '_']]
  scale: float
  shift: float
  history: dict[str, list]
  search: list[dict[str, Any]]


def prune(
  config: GPTConfig,
  params: dict,
  means: Means,
  train: Pairs,
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
) -> PruneResult:
  """Finds the smallest circuit it can that meets the target loss.

  The training pairs are parted: gates are learned on the last ones, the
  search measures its loss on the first `selection_pairs`, and the next
  `holdout_pairs` say whether its result holds on pairs it has not seen.

  Args:
    config: the model.
    params: its parameters.
    means: {site: values that removed nodes take}, as from `site_means`.
    train: training pairs.
    prune_config: hyper-parameters.
    seed: of gates and batches.
    progress: called now and then with what there is to show.

  Returns:
    Nodes, ranking, calibration and history.

  Raises:
    ValueError: if there are too few pairs, or if the full model itself misses
      the target on the selection pairs.
  """
  sites = node_sites(config, prune_config.final_resid)
  means = {site: jnp.asarray(means[site]) for site in sites}
  fitting, chosen, holdout = _part(train, prune_config)
  count = min(_CALIBRATION_PAIRS, int(fitting.last.shape[0]))
  calibrating = fitting.take(np.arange(count))

  def differences(nodes_or_gates, pairs):
    return differences_in_batches(config, params, means, nodes_or_gates, pairs)

  def loss(keep):
    gates = _gates(keep, sites)
    return float(
      selection_loss(differences(gates, chosen), prune_config.calibrate)
    )

  full_loss = loss(np.ones(sum(sites.values()), bool))
  if full_loss > prune_config.target_loss:
    raise ValueError(
      "prune.target_loss must be at least the full model's loss on training "
      f'pairs, {full_loss:.3f}, got {prune_config.target_loss}; train the '
      'model longer or raise the target.'
    )
  learned = optimize(
    config, params, means, fitting, sites, prune_config, seed, progress
  )
  tau = selection.flatten(learned.tau, sites)
  order = selection.rank(tau, selection.flatten(learned.tau_mean, sites))
  goal = max(
    prune_config.target_loss - prune_config.margin,
    (full_loss + prune_config.target_loss) / 2,
  )
  attempts = []
  for _ in range(prune_config.attempts):
    k = selection.bisect(order, loss, goal, max(1, int((tau > 0).sum())))
    nodes = selection.nodes_of(selection.top(order, k), sites)
    nodes = _refine(
      config, params, means, nodes, chosen, goal, prune_config, progress
    )
    gates = selection.gates_of(nodes, sites)
    # Two numbers, but with a large scale a few rare pairs decide them.
    shown = np.concatenate(
      [differences(gates, chosen), differences(gates, calibrating)]
    )
    scale, shift = (float(x) for x in calibration.fit(shown))
    losses = pair_losses(differences(gates, holdout), scale, shift)
    attempt = {
      'goal': goal,
      'bisected_nodes': k,
      'nodes': sum(len(kept) for kept in nodes.values()),
      'holdout_loss': float(losses.mean()),
    }
    attempts.append((attempt['holdout_loss'], nodes, scale, shift, attempt))
    excess = attempt['holdout_loss'] - prune_config.target_loss
    if excess <= 0:
      break
    # Closer to the full model, never beyond what it can do.
    goal = max(goal - excess - 0.01, (full_loss + goal) / 2)
  # The last attempt, if it held, is the one with the smallest loss.
  _, nodes, scale, shift, _ = min(attempts, key=lambda attempt: attempt[0])
  return PruneResult(
    nodes,
    selection.split(selection.scores(order), sites),
    scale,
    shift,
    learned.history,
    [attempt for *_, attempt in attempts],
  )


def _gates(keep, sites):
  return selection.split(keep.astype(np.float32), sites)


def _part(train: Pairs, config: PruneConfig) -> tuple[Pairs, Pairs, Pairs]:
  """Pairs for learning gates, for the search, and held out from both."""
  count = int(train.last.shape[0])
  seen = config.selection_pairs + config.holdout_pairs
  if count - seen < config.batch_pairs:
    raise ValueError(
      'prune.selection_pairs + prune.holdout_pairs + prune.batch_pairs must be '
      f'at most the number of training pairs, {count}, got '
      f'{seen + config.batch_pairs}; encode more pairs or lower one of them.'
    )
  indices = np.arange(count)
  chosen = train.take(indices[: config.selection_pairs])
  holdout = train.take(indices[config.selection_pairs : seen])
  return (
    train.take(indices[seen:]),
    chosen,
    holdout if config.holdout_pairs else chosen,
  )


def _refine(config, params, means, nodes, pairs, goal, prune_config, progress):
  """Drops what is not needed, then adds what necessity asks for."""

  def show(phase):
    def call(nodes_left, edges_left):
      if progress is not None:
        progress({'phase': phase, 'nodes': nodes_left, 'edges': edges_left})

    return call

  if prune_config.eliminate:
    nodes = eliminate(
      config,
      params,
      nodes,
      means,
      pairs,
      goal,
      prune_config.calibrate,
      show('eliminate'),
    )
  if prune_config.min_necessity is not None:
    nodes = add_until_necessary(
      config, params, nodes, means, pairs, prune_config.min_necessity
    )
  return nodes


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
    means: {site: values that removed nodes take}, as from `site_means`.
    train_task: pairs for everything that is fitted or chosen.
    test_task: pairs for the metrics only.
    prune_config: hyper-parameters.
    seed: of gates, batches, random circuits and bootstrap.
    progress: called now and then with a mapping: phase, step, steps,
      task_loss, nodes, edges, seconds_left, as far as they apply.
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
  found = prune(config, params, means, train, prune_config, seed, progress)
  sites = node_sites(config, prune_config.final_resid)
  means = {site: jnp.asarray(means[site]) for site in sites}
  if progress is not None:
    progress({'phase': 'measure', 'nodes': _count(found.nodes)})
  metrics = evaluate(
    config,
    params,
    means,
    found.nodes,
    (found.scale, found.shift),
    train.take(np.arange(prune_config.selection_pairs)),
    test,
    test_task.conditions,
    seed,
  )
  examples, tokens, activations = _examples(
    config, params, means, found, test_task, test, example_pairs, pieces
  )
  return Circuit(
    task=test_task.name,
    description=description,
    config=config,
    sites=sites,
    nodes=found.nodes,
    edges=find_edges(config, params, found.nodes, sites),
    means={site: np.asarray(mean) for site, mean in means.items()},
    scores=found.scores,
    scale=found.scale,
    shift=found.shift,
    ablation={'kind': 'mean', 'over': 'pretraining', 'tokens': mean_tokens},
    formula={'task_loss': TASK_LOSS, **FORMULAS},
    metrics=metrics,
    prune_config={**dataclasses.asdict(prune_config), 'search': found.search},
    history=found.history,
    examples=examples,
    example_tokens=tokens,
    activations=activations,
    provenance={
      **(provenance or {}),
      'seed': seed,
      'params_hash': hash_params(params),
    },
  )


def _count(nodes):
  return sum(len(kept) for kept in nodes.values())


def _examples(config, params, means, found, task, test, count, pieces):
  """Prompts of a few test pairs: texts, tokens, activations of kept nodes."""
  pieces = pieces or (lambda ids: [str(i) for i in ids])
  pairs = test.take(_spread(task.conditions, count))
  chosen = _spread(task.conditions, count)
  gates = selection.gates_of(found.nodes, {s: len(m) for s, m in means.items()})
  differences = differences_in_batches(config, params, means, gates, pairs)
  right = found.scale * differences * [1, -1] + found.shift * np.array([1, -1])
  probability = 1 / (1 + np.exp(-right.astype(np.float64)))
  examples = []
  for row, pair in enumerate(chosen):
    answers = [pieces([int(token)])[0] for token in task.answers[pair]]
    for side in (0, 1):
      prompt = task.tokens[pair, side, : int(task.last[pair, side]) + 1]
      examples.append(
        {
          'pieces': pieces([int(token) for token in prompt]),
          'answer': answers[side],
          'other_answer': answers[1 - side],
          'probability': float(probability[row, side]),
          'condition': task.conditions[pair],
          'side': 'ab'[side],
        }
      )
  tokens = pairs.tokens.reshape(-1, pairs.tokens.shape[2])
  _, recorded = jax.jit(GPT(config).apply)({'params': params}, tokens)
  activations = {
    site: np.asarray(recorded[site][..., kept], np.float32)
    for site, kept in found.nodes.items()
  }
  return examples, np.asarray(tokens, np.int32), activations


def _spread(conditions: Sequence[str], count: int) -> Int[np.ndarray, '_']:
  """Indices of `count` pairs that take turns between the conditions."""
  turn, order = {}, []
  for index, condition in enumerate(conditions):
    turn[condition] = turn.get(condition, 0) + 1
    order.append((turn[condition], index))
  return np.array([index for _, index in sorted(order)[:count]], int)
