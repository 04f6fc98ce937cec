"""The prune run: from a pretrained model to one circuit per learned task.

Every task is posed to the full model first. Those that it solves on test pairs
are pruned on training pairs; a circuit is reported only if it meets three
bounds on the test pairs, and where it does not, the summary says which it
missed. A circuit is written when it is found, so that an interrupted run goes
on with the next task.
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from sparse_interp import tasks as tasks_lib
from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.find import find_circuit
from sparse_interp.circuits.from_ranking import Unprunable
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.sweep import geometric_mean
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.runs import pose, pretrained, prune_report, table
from sparse_interp.tasks.encoding import EncodedTask
from sparse_interp.training import metrics, sharding

_PHASE = 'prune'


def prune(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Prunes the model of another workdir; see `find_circuits`.

  Args:
    config: `model_workdir` names the run that trained the model; `tasks`,
      `pairs`, `prune` and `circuits_at_most` are described in
      experiments/quickstart.py.
    workdir: receives circuits/, summary.json and config.json.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: a field is wrong, or there is no model.
  """
  check(config)
  if not config.model_workdir:
    raise ValueError(
      'model_workdir must name the workdir of a pretrain run, got nothing; '
      'give --config.model_workdir=<path>.'
    )
  begun = time.monotonic()
  model = pretrained.load(config.model_workdir)
  measured = pose.measure_tasks(config, model)
  claim = pathlib.Path(workdir) / 'config.json'
  was_claimed = claim.exists()
  workdir_lib.claim(workdir, config.to_dict())
  try:
    results = find_circuits(config, model, measured, workdir)
  except ValueError:
    if not was_claimed:
      claim.unlink()
      with contextlib.suppress(OSError):  # something else is there
        claim.parent.rmdir()
    raise
  summary = workdir_lib.add_to_summary(
    workdir,
    {
      'asked': {'config': config.to_dict(), 'seed': config.seed},
      **model.provenance,
      'device': sharding.device_name(),
      'wall_seconds': time.monotonic() - begun,
      **results,
    },
  )
  table.print_table(summary)
  return summary


def check(config: config_dict.ConfigDict) -> None:
  """Raises ValueError if a field for pruning is wrong; does no work."""
  pose.task_names(config)
  prune_config(config)
  if config.circuits_at_most is not None and config.circuits_at_most < 1:
    raise ValueError(
      'circuits_at_most must be at least 1, or None for all, got '
      f'{config.circuits_at_most}; choose e.g. 8.'
    )
  for field in ('train', 'test', 'length'):
    if config.pairs[field] < 1:
      raise ValueError(
        f'pairs.{field} must be at least 1, got {config.pairs[field]}; choose '
        'e.g. 256.'
      )


def prune_config(config: config_dict.ConfigDict) -> PruneConfig:
  """The hyper-parameters of pruning as library code takes them."""
  fields = config.prune.to_dict()
  known = {field.name for field in dataclasses.fields(PruneConfig)}
  for name in fields:
    if name not in known:
      raise ValueError(
        f'prune.{name} must be a field of PruneConfig, got {fields[name]!r}; '
        'remove it.'
      )
  return PruneConfig(**fields)


def find_circuits(
  config: config_dict.ConfigDict,
  model: pretrained.Model,
  measured: Mapping[str, pose.Measured],
  workdir: str,
) -> dict[str, Any]:
  """Prunes the tasks that the model learned.

  Args:
    config: with `tasks`, `pairs`, `prune`, `circuits_at_most` and `seed`.
    model: from `pretrained.load`.
    measured: from `pose.measure_tasks`.
    workdir: receives circuits/<task>/.

  Returns:
    Entries of summary.json: tasks, learned_tasks, geometric_mean_edges.

  Raises:
    ValueError: circuits of another model are in the workdir, or tasks were
      asked for by name and none of them can be pruned.
  """
  hyperparameters = prune_config(config)
  entries = {name: dict(one.entry) for name, one in measured.items()}
  learned = [name for name in entries if entries[name]['learned']]
  # In the published order of the tasks: nothing measured decides who is left.
  chosen = learned[: config.circuits_at_most]
  for name in learned[len(chosen) :]:
    entries[name]['not_pruned'] = (
      f'left out, since circuits_at_most is {config.circuits_at_most}; '
      'experiments/prune.py can prune it'
    )
  directories = {n: pathlib.Path(workdir) / 'circuits' / n for n in chosen}
  earlier = {
    name: _load_own(directory, model)
    for name, directory in directories.items()
    if (directory / 'circuit.json').exists()
  }
  begun, refused = time.monotonic(), []
  for i, name in enumerate(chosen):
    try:
      circuit = earlier.get(name) or _prune_task(
        config, model, hyperparameters, measured[name].pairs, name
      )
    except Unprunable as error:
      refused.append(error)
      entries[name]['not_pruned'] = str(error)
      metrics.say(_PHASE, f'{name:<28} not pruned: {error}')
      continue
    if name not in earlier:
      circuit_lib.save(circuit, directories[name])
    entries[name] |= prune_report.report(circuit, hyperparameters)
    per_task = (time.monotonic() - begun) / (i + 1)
    left = metrics.duration(per_task * (len(chosen) - i - 1))
    metrics.say(
      _PHASE, f'{table.circuit_line(name, entries[name])}, {left} left'
    )
  if config.tasks != 'all' and refused and len(refused) == len(chosen):
    raise refused[0]
  edges = [
    entry['circuit']['edges']
    for entry in entries.values()
    if entry['circuit'] is not None
  ]
  return {
    'tasks': entries,
    'learned_tasks': learned,
    'pruned_tasks': [n for n in chosen if entries[n]['circuit'] is not None],
    'target_loss': hyperparameters.target_loss,
    'target_on': hyperparameters.target_on,
    'geometric_mean_edges': geometric_mean(edges),
    'formulas': prune_report.FORMULAS,
  }


def _load_own(directory: pathlib.Path, model: pretrained.Model) -> Circuit:
  """Reads a circuit found earlier, if it was found in this very model."""
  circuit = circuit_lib.load(directory)
  found = circuit.provenance['params_hash']
  asked = circuit_lib.hash_params(model.params)
  if found != asked:
    raise ValueError(
      f'workdir must hold circuits of this model, got {directory} of another '
      f'(params_hash {found[:12]} instead of {asked[:12]}); choose another '
      'workdir or delete its circuits.'
    )
  return circuit


def _prune_task(
  config: config_dict.ConfigDict,
  model: pretrained.Model,
  hyperparameters: PruneConfig,
  posed: tuple[EncodedTask, EncodedTask],
  name: str,
) -> Circuit:
  begun = time.monotonic()
  circuit = find_circuit(
    model.config,
    model.params,
    model.means,
    *posed,
    hyperparameters,
    config.seed,
    progress=table.progress(_PHASE, name),
    provenance=model.provenance,
    pieces=model.tokenizer.pieces,
    description=tasks_lib.TASKS[name].description,
    mean_tokens=model.mean_tokens,
  )
  seconds = time.monotonic() - begun
  return dataclasses.replace(
    circuit, provenance=circuit.provenance | {'prune_seconds': seconds}
  )


def is_complete(workdir: str | pathlib.Path) -> bool:
  """Whether find_circuits has finished in this workdir."""
  path = pathlib.Path(workdir) / 'summary.json'
  return path.exists() and 'learned_tasks' in json.loads(path.read_text())
