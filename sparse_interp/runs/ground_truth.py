"""The ground truth run: methods on models whose circuits are known.

Programs compiled with Tracr are known component by component, programs planted
into a trained model weight by weight. Nothing is tuned per program.
"""

import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from sparse_interp.circuits import unfinished
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.unfinished import Unfinished
from sparse_interp.configs import sections
from sparse_interp.configs.fields import names_in
from sparse_interp.files import pace, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.ground_truth import compiled_scores, planted_scores
from sparse_interp.ground_truth.compiled import programs, storage
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.ground_truth.compiled.programs import (
  PROGRAMS,
  compile_published,
)
from sparse_interp.ground_truth.planted.planted_programs import (
  PROGRAMS as PLANTED,
)
from sparse_interp.models.params_hash import hash_params
from sparse_interp.runs import prune as prune_run
from sparse_interp.runs import table
from sparse_interp.training import hosts, metrics, ranges, sharding

_PHASE = 'ground_truth'


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Scores every method on every program; goes on where it was stopped.

  Args:
    config: see experiments/ground_truth.py.
    workdir: receives summary.json and config.json.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: if a field is wrong.
  """
  names = program_names(config)
  methods = check(config)
  prune = {
    gates: sections.read(
      PruneConfig, config.compiled.to_dict(), 'compiled', gates=gates
    )
    for gates in ('edges', 'nodes')
  }
  if config.planted_method not in planted_scores.METHODS:
    raise ValueError(
      f'planted_method must be one of {", ".join(planted_scores.METHODS)}, got '
      f'{config.planted_method!r}; choose one of these.'
    )
  for_planted = sections.read(PruneConfig, config.planted.to_dict(), 'planted')
  if config.model_workdir:
    prune_run.check_pairs(for_planted, config.pairs, 'pairs')
  begun = time.monotonic()
  on_the_way = pathlib.Path(workdir) / 'pruning'
  asked = [json.loads(json.dumps(config.to_dict())), unfinished.machine()]
  with hosts.claimed(workdir, config.to_dict(), _PHASE) as claim:
    for file in unfinished.FILES:
      claim.record(f'pruning/{file}')
    scored = Unfinished(on_the_way, asked)
    with sections.naming('compiled', PruneConfig):
      results = score_compiled(config, names, methods, prune, scored)
    with sections.naming('planted', PruneConfig):
      planted = score_planted(config, for_planted, scored)
    summary = _write_summary(config, workdir, results, planted, begun)
    unfinished.remove(on_the_way)
  print_table(summary)
  return summary


def check(config: config_dict.ConfigDict) -> list[str]:
  """Methods that a configuration asks for.

  Raises:
    ValueError: if a field is wrong.
  """
  ranges.check_finite(config)
  ranges.check_seed(config)
  ranges.check_whole(config, {'sequences': 1, 'pairs': 2, 'length': 2})
  ranges.check_text(
    config, 'programs_directory', 'model_workdir', optional=True
  )
  return compiled_scores.method_names(config.methods)


def _write_summary(
  config: config_dict.ConfigDict,
  workdir: str,
  results: dict[str, dict[str, Any]],
  planted: list[dict[str, Any]],
  begun: float,
) -> dict[str, Any]:
  edge_f1 = {name: result['edge_f1'] for name, result in results.items()}
  known = [f1 for f1 in edge_f1.values() if f1 is not None]
  rows = [row for result in results.values() for row in result['scores']]
  return workdir_lib.add_to_summary(
    workdir,
    {
      'asked': {'config': config.to_dict(), 'seed': config.seed},
      'code_version': workdir_lib.code_version(),
      'versions': versions.add([], versions.current(), phase=_PHASE),
      'device': sharding.device_name(),
      'wall_seconds': time.monotonic() - begun,
      'edge_f1': edge_f1,
      'mean_edge_f1': float(np.mean(known)) if known else None,
      'greedy': {name: result['greedy'] for name, result in results.items()},
      'planted_f1': {row['program'].split()[-1]: row['f1'] for row in planted},
      'scores': rows + planted,
    },
  )


def program_names(config: config_dict.ConfigDict) -> list[str]:
  """Names of the programs that a configuration asks for.

  Raises:
    ValueError: if one is unknown.
  """
  if config.programs == 'all':
    return list(PROGRAMS)
  names = names_in(config.programs)
  for name in names:
    if name not in PROGRAMS:
      raise ValueError(
        f'programs must be all, or names among {", ".join(PROGRAMS)} with '
        f'commas between, got {name!r}; correct it.'
      )
  if not names:
    raise ValueError(
      'programs must name one at least, got none; choose e.g. all.'
    )
  return names


def load_program(
  name: str, directory: str | pathlib.Path | None
) -> CompiledProgram:
  """A published program from its file, or compiled where there is none.

  Args:
    name: of the program.
    directory: with files <name>.npz; None: those that ship.

  Raises:
    ImportError: if there is no file and Tracr is not installed.
  """
  path = pathlib.Path(directory or programs.SHIPPED) / f'{name}.npz'
  if path.exists():
    return storage.load(path)
  metrics.say(_PHASE, f'{name}: compiled anew, since {path} does not exist')
  return compile_published(name)


def score_compiled(
  config: config_dict.ConfigDict,
  names: list[str],
  methods: list[str],
  prune: dict[str, PruneConfig],
  scored: Unfinished,
) -> dict[str, dict[str, Any]]:
  """{program: what `compiled_scores.score_program` returns}."""
  results, begun = {}, time.monotonic()
  for i, name in enumerate(names):
    program = load_program(name, config.programs_directory)
    results[name] = scored.recall(
      f'{name} {hash_params(program.params)}',
      lambda program=program: compiled_scores.score_program(
        program,
        prune,
        methods,
        config.seed,
        config.sequences,
        lambda line: metrics.say(_PHASE, line),
      ),
    )
    # No other program has its shapes; thousands of compiled functions would
    # use up the memory maps that a process may have.
    jax.clear_caches()
    left = metrics.duration(pace.seconds_left(begun, i + 1, len(names)))
    metrics.say(_PHASE, f'{name} done, {left} left for compiled programs')
  return results


def score_planted(
  config: config_dict.ConfigDict, prune_config: PruneConfig, scored: Unfinished
) -> list[dict[str, Any]]:
  """Rows of planted programs; none without a model to plant them in."""
  if not config.model_workdir:
    metrics.say(
      _PHASE,
      'planted programs skipped: they need a trained model, '
      '--config.model_workdir=<path>',
    )
    return []
  model = planted_scores.load(config.model_workdir)
  model_hash = hash_params({'params': model[1], 'windows': model[2]})
  rows, begun = [], time.monotonic()
  for i, program in enumerate(PLANTED.values()):
    row = scored.recall(
      f'planted {program.name} {model_hash}',
      lambda program=program: planted_scores.score_planted(
        *model,
        program,
        prune_config,
        config.seed,
        config.pairs,
        config.length,
        config.planted_method,
        table.progress(_PHASE, f'planted {program.name}'),
      ),
    )
    rows.append(row)
    jax.clear_caches()
    left = metrics.duration(pace.seconds_left(begun, i + 1, len(PLANTED)))
    metrics.say(_PHASE, f'{compiled_scores.row_line(row)}  {left} left')
  return rows


def print_table(summary: dict[str, Any]) -> None:
  """Every score, and the sets of greedy removal."""
  for row in summary['scores']:
    print(compiled_scores.row_line(row))
  for name, by_ablation in summary['greedy'].items():
    for ablation, found in by_ablation.items():
      verdict = {None: '', True: ', as published', False: ', NOT as published'}
      print(
        f'{name:<16} greedy {ablation:<8} length {found["length"]}: '
        f'{found["count"]} edges{verdict[found["matches_published"]]}'
      )
  if summary['mean_edge_f1'] is not None:
    print(f'mean F1 of edge masks, components: {summary["mean_edge_f1"]:.3f}')
