"""From a model and a task to a measured circuit: the whole search in order."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparse_interp.circuits import examples as examples_lib
from sparse_interp.circuits.circuit import Circuit, list_edges
from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.faithfulness import FORMULAS, evaluate
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.ablation import constants
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.losses import KL_LOSS, TASK_LOSS
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking.pruning import optimize
from sparse_interp.circuits.selecting.droppable import (
  MOST_UNITS,
  count_droppable,
)
from sparse_interp.circuits.selecting.from_ranking import (
  PruneResult,
  check_full_loss,
  rank_units,
  select,
  units_of,
)
from sparse_interp.circuits.selecting.parted import part
from sparse_interp.circuits.unfinished import (
  Unfinished,
  identity,
  machine,
  question,
)
from sparse_interp.models import GPTConfig
from sparse_interp.models.model import Means
from sparse_interp.models.params_hash import hash_params
from sparse_interp.models.sites import node_sites
from sparse_interp.tasks.encoding import EncodedTask


def find_units(
  model: GatedModel,
  train: Batch,
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
  unfinished: Unfinished | None = None,
) -> PruneResult:
  """Finds the smallest circuit it can that meets the target loss.

  The training pairs are parted: gates are learned on the last ones, the
  search measures its loss on the first `selection_pairs`, and the next
  `holdout_pairs` say whether its result holds on pairs it has not seen.

  Args:
    model: the model with its ablation.
    train: training pairs or sequences.
    prune_config: hyper-parameters.
    seed: of gates and batches.
    progress: called now and then with what there is to show.
    unfinished: keeps what becomes known, and has what the same search, when
      it was interrupted, knew already.

  Returns:
    Units, ranking, calibration and history.

  Raises:
    ValueError: if there are too few pairs, or if the full model itself misses
      the target on the selection pairs, or the empty circuit meets it.
  """
  units = units_of(model, prune_config)
  data = part(model, train, prune_config)
  check_full_loss(model, data.chosen, prune_config)
  learned = optimize(
    units, data.fitting, prune_config, seed, progress, unfinished
  )
  order, active = rank_units(learned, units)
  found = select(units, order, active, data, prune_config, progress, unfinished)
  return found._replace(history=learned.history)


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
  pieces: Callable[[Sequence[int]], list[str]] | None = None,
  description: str = '',
  mean_tokens: int = 0,
  example_pairs: int = 6,
  directory: pathlib.Path | None = None,
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
    directory: for what becomes known on the way (see `unfinished`): called
      again with the same arguments after it was interrupted at any moment, it
      goes on from there and ends with the same circuit. None keeps nothing.

  Returns:
    The circuit with its metrics; see `circuit` and `faithfulness`.

  Raises:
    ValueError: see `find_units`.
  """
  train, test = make_pairs(train_task), make_pairs(test_task)
  values = constants(config, params, means, prune_config.ablation, train)
  model = gated_model.make(
    config,
    params,
    values,
    prune_config.ablation,
    prune_config.products,
    prune_config.closed,
  )
  unfinished = Unfinished(
    directory,
    directory
    and {
      **identity(model, {'train': train, 'test': test}, prune_config, seed),
      'conditions': list(test_task.conditions),
      'model': repr(config),
      'machine': machine(),
    },
  )
  found = find_units(model, train, prune_config, seed, progress, unfinished)
  parts = found.units.parts(found.keep)
  if progress is not None:
    progress(
      {'phase': 'measure', 'nodes': parts.node_count, 'edges': parts.edge_count}
    )
  metrics = unfinished.recall(
    question('test', found.keep),
    lambda: evaluate(
      found.units,
      found.keep,
      (found.scale, found.shift),
      train.take(np.arange(prune_config.selection_pairs)),
      test,
      test_task.conditions,
      seed,
      progress=progress,
      bounded=prune_config.bounded,
    ),
  )
  if found.keep.sum() <= MOST_UNITS:
    chosen = train.take(np.arange(prune_config.selection_pairs))
    metrics['droppable_units'] = unfinished.recall(
      question('droppable', found.keep),
      lambda: count_droppable(found.units, found.keep, chosen, prune_config),
    )
  examples, tokens, activations = examples_lib.make_examples(
    model.under(model.kinds[0]),
    parts.nodes,
    (found.scale, found.shift),
    found.units.gates(found.keep),
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
      'over': _OVER[model.kinds[0]],
      'tokens': mean_tokens,
      'closed': prune_config.closed,
    },
    formula={
      'task_loss': TASK_LOSS,
      'kl_loss': KL_LOSS,
      **FORMULAS,
      **examples_lib.FORMULAS,
    },
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
