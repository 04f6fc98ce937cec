"""Eight pruning jobs as one vmapped call, against the same eight in sequence.

Both ways are compiled before they are timed, and take turns.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import config_dict

from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking.pruning import optimize, optimize_together
from sparse_interp.circuits.selecting.from_ranking import units_of
from sparse_interp.configs import sections
from sparse_interp.ground_truth.compiled import programs
from sparse_interp.ground_truth.compiled.storage import load
from sparse_interp.ground_truth.compiled_circuits import gate, recorded
from sparse_interp.training import metrics, ranges

_PHASE = 'strength'

# Prices that the jobs differ in, besides their seeds.
_PRICES = np.geomspace(0.3, 3, 8)


def time_cases(
  config: config_dict.ConfigDict, model: GatedModel, pairs: Pairs
) -> dict[str, Any]:
  """Times `config.together`, case by case.

  One job of a large model or batch keeps the processor busy by itself; that of
  a small one is mostly overhead, which jobs then share.
  """
  program = load(_program(config))
  inputs = program.draw(config.program_sequences, config.seed, 'train')
  train = recorded(program, inputs)
  on = {
    'model': (model, pairs),
    'program': (gate(program, train, 'task_mean'), train),
  }
  results = {}
  for name, case in config.together.items():
    values = {**config.prune.to_dict(), **case.to_dict()}
    gated, data = on[values.pop('on')]
    repetitions = values.pop('repetitions')
    asked = sections.read(PruneConfig, values, f'together.{name}')
    results[name] = time_together(gated, data, asked, repetitions)
    metrics.say(_PHASE, line(name, results[name]))
  return results


def _program(config: config_dict.ConfigDict) -> pathlib.Path:
  directory = pathlib.Path(config.programs_directory or programs.SHIPPED)
  return directory / 'reverse.npz'


def check(config: config_dict.ConfigDict) -> None:
  """Raises ValueError if a case cannot be timed; does no work."""
  if not _program(config).is_file():
    raise ValueError(
      'programs_directory must hold reverse.npz, got '
      f'{config.programs_directory} without it; correct the path.'
    )
  for name, case in config.together.items():
    place = f'together.{name}'
    if case.on not in ('model', 'program'):
      raise ValueError(
        f'{place}.on must be model or program, got {case.on!r}; choose one.'
      )
    least = dict.fromkeys(
      (f'{place}.{field}' for field in ('batch_pairs', 'steps', 'repetitions')),
      1,
    )
    ranges.check_whole(config, least)
    asked = {**config.prune.to_dict(), **case.to_dict()}
    del asked['on'], asked['repetitions']
    sections.read(PruneConfig, asked, place)


def time_together(
  model: GatedModel,
  data: Any,
  config: PruneConfig,
  repetitions: int,
) -> dict[str, Any]:
  """Times both ways and compares what they learn.

  Args:
    model: the model with its ablation.
    data: training Pairs or Recorded, shared by all jobs.
    config: of the first job; the others have other prices and seeds.
    repetitions: of each way; medians are reported.

  Returns:
    Seconds of both ways, their ratio, and the largest difference between the
    learned gate parameters, tau in [-1, 1].
  """
  units = units_of(model, config)
  jobs = [
    (
      data,
      dataclasses.replace(config, k_coef=config.k_coef * float(price)),
      seed,
    )
    for seed, price in enumerate(_PRICES)
  ]

  def together():
    return optimize_together(units, jobs)

  def in_sequence():
    return [optimize(units, *job) for job in jobs]

  seconds = {'together': [], 'in_sequence': []}
  results = {'together': together(), 'in_sequence': in_sequence()}
  for _ in range(repetitions):
    for name, run in (('together', together), ('in_sequence', in_sequence)):
      begun = time.perf_counter()
      results[name] = run()
      seconds[name].append(time.perf_counter() - begun)
  medians = {name: float(np.median(one)) for name, one in seconds.items()}
  return {
    'jobs': len(jobs),
    'steps': config.steps,
    'batch': config.batch_pairs,
    'repetitions': repetitions,
    'seconds_together': medians['together'],
    'seconds_in_sequence': medians['in_sequence'],
    'ratio': medians['together'] / medians['in_sequence'],
    'largest_difference': _difference(**results),
  }


def _difference(together, in_sequence):
  """Largest |tau - tau| over jobs and units."""
  return max(
    float(np.abs(one.tau[key] - other.tau[key]).max())
    for one, other in zip(together, in_sequence, strict=True)
    for key in one.tau
    if one.tau[key].size
  )


def line(name: str, found: Mapping[str, Any]) -> str:
  """How long eight jobs take in both ways."""
  return (
    f'eight jobs at once over in sequence, {name}: {found["ratio"]:.3f} '
    f'(batch {found["batch"]})'
  )
