"""How strong is pruning? Every method on the same tasks, pairs and target.

For each task that the model learned, node masks and edge masks are tuned with
the same number of trials, and made into circuits by the same search:

  nodes             learned node masks, bisected (the published method)
  nodes_eliminated  the same, then every kept node tried alone
  edges_bisected    learned edge masks, bisected
  edges             the same, then every kept edge tried alone
  attribution       nodes ranked by gradient attribution, bisected

Circuits are counted in edges and measured on test pairs.
"""

import contextlib
import pathlib
import time
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from sparse_interp.benchmarks import together
from sparse_interp.circuits import intervals, unfinished
from sparse_interp.circuits.extracted import three_ways
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.losses import pair_losses
from sparse_interp.circuits.gating.task_loss import Pairs, make_pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import attribution
from sparse_interp.circuits.selecting import from_ranking, parted, sweep
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.circuits.selecting.parted import Split
from sparse_interp.circuits.tuning.search import search
from sparse_interp.circuits.unfinished import Unfinished
from sparse_interp.configs import sections
from sparse_interp.files import pace, sealed, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.runs import (
  pair_files,
  pose,
  pretrained,
  prune,
  strength_summary,
  table,
)
from sparse_interp.training import hosts, metrics, ranges, sharding

_PHASE = 'strength'


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Compares the methods; goes on where an earlier call stopped.

  Args:
    config: see experiments/strength.py.
    workdir: receives tasks/<name>.json, searches and summary.json.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: a field is wrong, or there is no model.
  """
  check(config)
  prune.check_model_workdir(config, workdir)
  config = pair_files.remembered(config, workdir)
  with hosts.claimed(workdir, config.to_dict(), _PHASE) as claim:
    summary = _compare_all(config, workdir, claim)
  strength_summary.print_summary(summary)
  return summary


def check(config: config_dict.ConfigDict) -> None:
  """Raises ValueError if a field is wrong; does no work."""
  prune.check(config)
  ranges.check_whole(
    config, {'trials': 1, 'parallel': 1, 'program_sequences': 1}
  )
  for gates in ('nodes', 'edges'):
    asked = hyperparameters(config, gates, eliminate=False)
    prune.check_pairs(asked, config.pairs.train)
  for target in config.targets:
    if problem := ranges.number_problem(target, above=0):
      raise ValueError(
        f'targets must each be {problem}, got {target!r}; choose e.g. '
        '(0.5, 0.15).'
      )
  together.check(config)


def _compare_all(
  config: config_dict.ConfigDict, workdir: str, claim: workdir_lib.Claim
) -> dict[str, Any]:
  begun = time.monotonic()
  loaded = pretrained.load(config.model_workdir)
  measured = pose.measure_tasks(config, loaded)
  learned = [name for name in measured if measured[name].entry['learned']]
  if not learned:
    entries = {name: one.entry for name, one in measured.items()}
    asked = config.prune
    raise ValueError(
      pose.why_none(entries, asked.target_loss, asked.least_probability)
    )
  model = gated_model.make(loaded.config, loaded.params, loaded.means)
  tasks, history, started = {}, [], time.monotonic()
  for i, name in enumerate(learned):
    pairs = tuple(make_pairs(task) for task in measured[name].posed)
    tasks[name] = compare(
      config, model, name, *pairs, pathlib.Path(workdir), claim
    )
    history = versions.add(
      history,
      tasks[name].get('versions', {}),
      phase=_PHASE,
      from_task=name,
    )
    # The sizes that the next task tries are others, and a process may have
    # only so many memory maps for compiled functions.
    jax.clear_caches()
    left = metrics.duration(pace.seconds_left(started, i + 1, len(learned)))
    metrics.say(
      _PHASE, f'{strength_summary.line(name, tasks[name])}, {left} left'
    )
  pairs = make_pairs(measured[learned[0]].posed[0])
  return workdir_lib.add_to_summary(
    workdir,
    {
      'asked': {'config': config.to_dict(), 'seed': config.seed},
      **loaded.provenance,
      'versions': history,
      'device': sharding.device_name(),
      'ablation': 'mean over pretraining',
      'split': 'test pairs',
      'formulas': strength_summary.FORMULAS,
      'tasks': tasks,
      **strength_summary.conclusions(tasks),
      'together': together.time_cases(config, model, pairs),
      'agreement': three_ways.largest_differences(loaded, pairs, config.seed),
      'wall_seconds': time.monotonic() - begun,
    },
  )


def hyperparameters(
  config: config_dict.ConfigDict, gates: str, eliminate: bool
) -> PruneConfig:
  """Where the search starts: the defaults for nodes or for edges."""
  values = {**config.prune.to_dict(), **config[gates].to_dict()}
  return sections.read(
    PruneConfig, values, 'prune', gates=gates, eliminate=eliminate
  )


def compare(
  config: config_dict.ConfigDict,
  model: GatedModel,
  name: str,
  train: Pairs,
  test: Pairs,
  workdir: pathlib.Path,
  claim: workdir_lib.Claim,
) -> dict[str, Any]:
  """All methods on one task; the result is kept in tasks/<name>.json."""
  path = workdir / 'tasks' / f'{name}.json'
  claim.record(f'tasks/{name}.json')  # refuses that of others
  if path.exists():
    return sealed.read_json(path, 'delete it and run again')
  claim.settle()
  on_the_way = workdir / 'pruning' / name
  try:
    with sections.naming('prune', PruneConfig):
      result = _by_all_methods(config, model, name, train, test, workdir)
  except from_ranking.Unprunable as error:
    result = {'not_pruned': str(error)}
  sealed.write_json(path, {**result, 'versions': versions.current()})
  for directory in on_the_way.glob('*'):
    unfinished.remove(directory)
  for directory in (on_the_way, on_the_way.parent):
    with contextlib.suppress(OSError):  # missing, or not empty
      directory.rmdir()
  return sealed.read_json(path, 'run again')


def _by_all_methods(
  config, model, name, train, test, workdir
) -> dict[str, Any]:
  """Circuits, searches and curves of one task."""
  on_the_way = workdir / 'pruning' / name
  progress = table.progress(_PHASE, name)
  result: dict[str, Any] = {
    'trials': config.trials,
    'circuits': {},
    'search': {},
    'curves': {},
  }
  for gates in ('nodes', 'edges'):
    base = hyperparameters(config, gates, eliminate=False)
    data = parted.part(model, train, base)
    found = search(
      model,
      train,
      base,
      config.trials,
      config.parallel,
      config.seed,
      workdir / 'searches' / name / gates,
      progress,
    )
    ranking = found.best_order, found.best_active
    methods = ('nodes', 'nodes_eliminated')
    if gates == 'edges':
      methods = ('edges_bisected', 'edges')
    for method, eliminate in zip(methods, (False, True), strict=True):
      asked = hyperparameters(config, gates, eliminate)
      result['circuits'][method] = measure(
        *(model, ranking, data, asked, test, config.seed, progress),
        on_the_way / method,
      )
    result['search'][gates] = {
      'default_edges': found.trials[0]['edges'],
      'best_edges': min(trial['edges'] for trial in found.trials),
      'best_params': found.best_config.__dict__,
    }
    if gates == 'edges':
      result['curves'][gates] = _curve(config, model, ranking, data, base)
  base = hyperparameters(config, 'nodes', eliminate=False)
  units = from_ranking.units_of(model, base)
  scores = attribution.attribution(units, data.fitting)
  ranking = attribution.order(scores), units.count // 8
  result['circuits']['attribution'] = measure(
    *(model, ranking, data, base, test, config.seed, progress),
    on_the_way / 'attribution',
  )
  result['curves']['attribution'] = _curve(config, model, ranking, data, base)
  return result


def measure(
  model: GatedModel,
  ranking: tuple[np.ndarray, int],
  data: Split,
  config: PruneConfig,
  test: Pairs,
  seed: int,
  progress: Any,
  on_the_way: pathlib.Path,
) -> dict[str, Any]:
  """The circuit that a ranking leads to, counted, measured on test pairs."""
  units = from_ranking.units_of(model, config)
  order, active = ranking
  known = Unfinished(
    on_the_way,
    {
      **unfinished.identity(model, data._asdict(), config, seed),
      'ranking': [unfinished.digest(order), active],
      'model': repr(model.config),
      'machine': unfinished.machine(),
    },
  )
  found = from_ranking.select(
    units, order, active, data, config, progress, known
  )
  parts = units.parts(found.keep)
  answers = answer_by_gates(units)(found.keep, test)
  losses = np.asarray(pair_losses(answers, found.scale, found.shift))
  return {
    'nodes': parts.node_count,
    'edges': parts.edge_count,
    'test_loss': float(losses.mean()),
    'test_loss_interval': intervals.of_mean(losses, seed),
    'reaches_target': bool(losses.mean() <= config.target_loss),
    'attempts': found.search,
  }


def _curve(config, model, ranking, data, base):
  units = from_ranking.units_of(model, base)
  order, active = ranking
  return sweep.curve(units, order, active, data, base, config.targets)
