"""The prune run: from a pretrained model to one circuit per learned task.

Every task is posed to the full model first. Those that it solves on test pairs
are pruned on training pairs; a circuit is reported only if it meets three
bounds on the test pairs, and where it does not, the summary says which it
missed. A circuit is written when it is found, and what is known on the way to
it lies in pruning/, so that an interrupted run goes on where it was, in the
middle of a task, too.
"""

import contextlib
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits import unfinished
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.prune_task import prune_posed
from sparse_interp.circuits.selecting.from_ranking import Unprunable
from sparse_interp.circuits.selecting.sweep import geometric_mean
from sparse_interp.configs import sections
from sparse_interp.files import pace, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models.model import Model
from sparse_interp.models.params_hash import hash_params
from sparse_interp.runs import (
  found_circuits,
  pair_files,
  pose,
  pretrained,
  prune_report,
  report,
  table,
)
from sparse_interp.training import hosts, metrics, ranges, sharding

_PHASE = 'prune'


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Prunes the model of another workdir; see `find_circuits`.

  Args:
    config: `model_workdir` names the run that trained the model; `tasks`,
      `pairs`, `prune` and `circuits_at_most` are described in
      experiments/quickstart.py.
    workdir: receives circuits/, summary.json, config.json and report.html.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: a field is wrong, or there is no model.
  """
  check(config)
  check_model_workdir(config, workdir)
  config = pair_files.remembered(config, workdir)
  begun = time.monotonic()
  with hosts.claimed(workdir, config.to_dict(), _PHASE) as claim:
    model = pretrained.load(config.model_workdir)
    measured = pose.measure_tasks(config, model)
    results = find_circuits(config, model, measured, workdir, claim)
    workdir_lib.add_to_summary(
      workdir,
      {
        'asked': {'config': config.to_dict(), 'seed': config.seed},
        **model.provenance,
        'device': sharding.device_name(),
        'wall_seconds': time.monotonic() - begun,
        **results,
      },
    )
    summary = report.write(workdir)
  table.print_table(summary)
  return summary


def check(config: config_dict.ConfigDict) -> None:
  """Raises ValueError if a field for pruning is wrong; does no work."""
  ranges.check_finite(config)
  ranges.check_seed(config)
  ranges.check_whole(
    config,
    {'pairs.train': 1, 'pairs.test': 1, 'pairs.length': 1},
    {'circuits_at_most': 1},
  )
  pair_files.tasks_of(config)
  check_pairs(prune_config(config), config.pairs.train)


def check_pairs(config: PruneConfig, count: int, field: str = 'pairs.train'):
  """Raises ValueError if there are too few pairs for all that uses some.

  Args:
    config: what each use takes.
    count: of pairs.
    field: that decides it.
  """
  needed = config.selection_pairs + config.holdout_pairs + config.batch_pairs
  if count < needed:
    raise ValueError(
      f'{field} must be at least prune.selection_pairs + prune.holdout_pairs + '
      f'prune.batch_pairs, {needed}, got {count}; raise it or lower one of '
      'these.'
    )


def check_model_workdir(config: config_dict.ConfigDict, workdir: str) -> None:
  """Raises ValueError unless another directory is named as the model's."""
  ranges.check_text(config, 'model_workdir', optional=True)
  if not config.model_workdir:
    raise ValueError(
      'model_workdir must name the workdir of a pretrain run, got nothing; '
      'give --config.model_workdir=<path>.'
    )
  if pathlib.Path(config.model_workdir).resolve() == (
    pathlib.Path(workdir).resolve()
  ):
    raise ValueError(
      f'workdir must be another directory than model_workdir, got {workdir} '
      'for both; choose another workdir.'
    )


def prune_config(config: config_dict.ConfigDict) -> PruneConfig:
  """The hyper-parameters of pruning as library code takes them."""
  return sections.read(PruneConfig, config.prune.to_dict(), 'prune')


def find_circuits(
  config: config_dict.ConfigDict,
  model: Model,
  measured: Mapping[str, pose.Measured],
  workdir: str,
  claim: workdir_lib.Claim,
) -> dict[str, Any]:
  """Prunes the tasks that the model learned and that have no circuit yet.

  Args:
    config: with `tasks`, `pairs`, `prune`, `circuits_at_most` and `seed`.
    model: from `pretrained.load`.
    measured: from `pose.measure_tasks`.
    workdir: receives circuits/<task>/.
    claim: on the workdir.

  Returns:
    Entries of summary.json: tasks, learned_tasks, geometric_mean_edges,
    versions.

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
  for name in chosen:
    for file in circuit_lib.FILES:
      claim.record(f'circuits/{name}/{file}')  # refuses those of others
  earlier = {
    name: found_circuits.load_own(directory, model, name)
    for name, directory in directories.items()
  }
  on_the_way = {n: pathlib.Path(workdir) / 'pruning' / n for n in chosen}
  if not all(earlier.values()):
    found_circuits.say_versions(earlier.values())
  # What made the model comes first, where it was made in this workdir.
  history = [
    entry
    for entry in workdir_lib.read_summary(workdir).get('versions', [])
    if entry['phase'] != _PHASE
  ]
  begun, refused = time.monotonic(), []
  for i, name in enumerate(chosen):
    for file in unfinished.FILES:
      claim.record(f'pruning/{name}/{file}')
    try:
      circuit = earlier[name] or _prune_task(
        config,
        model,
        hyperparameters,
        measured[name],
        on_the_way[name],
      )
    except Unprunable as error:
      refused.append(error)
      entries[name]['not_pruned'] = str(error)
      metrics.say(_PHASE, f'{name:<28} not pruned: {error}')
      continue
    if not earlier[name]:
      claim.settle()
      circuit_lib.save(circuit, directories[name])
    by = circuit.provenance.get('versions', {})
    history = versions.add(history, by, phase=_PHASE, from_task=name)
    unfinished.remove(on_the_way[name])
    entries[name] |= prune_report.report(circuit, hyperparameters)
    left = metrics.duration(pace.seconds_left(begun, i + 1, len(chosen)))
    metrics.say(
      _PHASE, f'{table.circuit_line(name, entries[name])}, {left} left'
    )
  # Those without a circuit have kept theirs until now: a run cut by a limit
  # time and again must not learn the same gates each time.
  for directory in on_the_way.values():
    unfinished.remove(directory)
  with contextlib.suppress(OSError):  # missing, or not empty
    (pathlib.Path(workdir) / 'pruning').rmdir()
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
    'params_hash': hash_params(model.params),
    'versions': history,
  }


def _prune_task(
  config: config_dict.ConfigDict,
  model: Model,
  hyperparameters: PruneConfig,
  measured: pose.Measured,
  on_the_way: pathlib.Path,
) -> Circuit:
  with sections.naming('prune', PruneConfig):
    return prune_posed(
      model,
      measured.task,
      measured.posed,
      hyperparameters,
      config.seed,
      table.progress(_PHASE, measured.task.name),
      on_the_way,
    )
