"""Poses tasks to the full model: what it has learned is what can be pruned."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

from sparse_interp.circuits.counting import counting
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.solving import evaluate_model, on_pairs
from sparse_interp.configs import sections
from sparse_interp.models import GPTConfig
from sparse_interp.models.model import Model
from sparse_interp.runs import pair_files, table
from sparse_interp.tasks.encoding import EncodedTask, encode_task
from sparse_interp.tasks.pairs import Task
from sparse_interp.training import estimate, free_memory, metrics

_PHASE = 'prune'

# Train pairs say whether a task is learned: test pairs choose nothing.
_LEARNED_ON = 256


class Measured(NamedTuple):
  """What the full model does on a task.

  Attributes:
    entry: of the task in summary.json.
    pairs: for training and for tests; None where it cannot be posed.
    task: that was posed.
  """

  entry: dict[str, Any]
  pairs: tuple[EncodedTask, EncodedTask] | None
  task: Task

  @property
  def posed(self) -> tuple[EncodedTask, EncodedTask]:
    """The pairs of a task that can be posed, as every learned one can."""
    assert self.pairs is not None
    return self.pairs


def measure_tasks(
  config: config_dict.ConfigDict, model: Model
) -> dict[str, Measured]:
  """Poses every task that was asked for to the full model; writes nothing.

  Args:
    config: with `tasks`, `pairs`, `prune` and `seed`.
    model: from `pretrained.load`.

  Raises:
    ValueError: tasks were asked for by name, and none of them can be posed or
      none was learned.
  """
  check_memory(config, model.config)
  gated = gated_model.make(model.config, model.params, model.means)
  measured = {}
  for name, task in pair_files.tasks_of(config).items():
    measured[name] = _measure_task(config, model, gated, task)
    metrics.say(_PHASE, table.task_line(name, measured[name].entry))
  entries = {name: one.entry for name, one in measured.items()}
  if config.tasks != 'all' and not any(e['learned'] for e in entries.values()):
    asked = config.prune
    raise ValueError(
      why_none(entries, asked.target_loss, asked.least_probability)
    )
  return measured


def check_memory(config: config_dict.ConfigDict, model: GPTConfig) -> None:
  """Refuses more pairs or steps than the memory that is free can hold.

  Args:
    config: with `tasks`, `pairs` and `prune`.
    model: that will be pruned.

  Raises:
    ValueError: see `estimate.check`.
  """
  pairs = config.pairs
  asked = sections.read(PruneConfig, config.prune.to_dict(), 'prune')
  parts = estimate.of_pruning(
    model,
    len(pair_files.tasks_of(config)),
    pairs.train,
    pairs.test,
    min(pairs.length, model.context_length),
    asked.steps,
    asked.batch_pairs,
  )
  estimate.check(parts, free_memory.of_machine())


def why_none(
  entries: Mapping[str, Any], target: float, least: float = 0.1
) -> str:
  """One line on tasks of which none can be pruned."""
  posed = {n: e for n, e in entries.items() if 'unposable' not in e}
  if not posed:
    return next(iter(entries.values()))['unposable']
  reached = {n: e.get('learned_on', e) for n, e in posed.items()}
  losses = ', '.join(
    f'{name} {one["full_loss"]:.3f}' for name, one in reached.items()
  )
  rare = {n: m for n, m in reached.items() if m['full_loss'] <= target}
  if rare:
    name, one = max(rare.items(), key=lambda x: x[1]['full_probability'])
    return (
      'prune.least_probability must be reached by the full model on one of '
      f'tasks, got {least} and at most {one["full_probability"]:.3f} of all '
      f'tokens for the right answer ({name}); train the model longer or choose '
      'other tasks.'
    )
  listed = any('pairs_file' in entry for entry in posed.values())
  text = ' or on text with such prompts' if listed else ''
  return (
    f'prune.target_loss must be reached by the full model on one of tasks, got '
    f'{target} and losses of {losses}; train the model longer{text}, raise the '
    'target or choose other tasks.'
  )


def _measure_task(
  config: config_dict.ConfigDict, model: Model, gated: GatedModel, task: Task
) -> Measured:
  pairs = config.pairs
  length = min(pairs.length, model.config.context_length)
  show = table.progress(_PHASE, task.name)
  assert model.tokenizer is not None  # without one it would have no text
  try:
    train, test = (
      encode_task(
        *(task, model.tokenizer, split, count, length, config.seed),
        counting(show, f'draw {split} pairs'),
      )
      for split, count in (('train', pairs.train), ('test', pairs.test))
    )
  except ValueError as error:
    entry = {'learned': False, 'full_loss': None, 'unposable': str(error)}
    entry |= {'circuit': None, **pair_files.entry(task)}
    return Measured(entry, None, task)
  about_file = pair_files.entry(task, train, test)
  if about_file:
    metrics.say(_PHASE, pair_files.line(task, about_file, train, test))
  measured = evaluate_model(
    gated,
    make_pairs(test),
    test.conditions,
    config.seed,
    counting(show, 'full model'),
  )
  some = make_pairs(train)
  some = some.take(np.arange(min(_LEARNED_ON, some.size)))
  loss, probability = on_pairs(gated, some)
  entry = {
    **measured,
    'learned': loss <= config.prune.target_loss
    and probability >= config.prune.least_probability,
    'learned_on': {
      'train_pairs': some.size,
      'full_loss': loss,
      'full_probability': probability,
    },
    'test_pairs': len(test.conditions),
    'train_pairs': len(train.conditions),
    'rejected_pairs': test.rejected,
    'circuit': None,
    **about_file,
  }
  return Measured(entry, (train, test), task)
