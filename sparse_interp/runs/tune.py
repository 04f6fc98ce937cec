"""Finds the fastest variant of every kernel on the GPU at hand.

Each case is written when it is done, and the same command goes on where it was
stopped. tuned.json then holds all, as `ops/tuned` wants it.
"""

import pathlib
import time
from typing import Any

import jax
from ml_collections import config_dict

from sparse_interp.benchmarks import tuning, variants
from sparse_interp.benchmarks.about import about
from sparse_interp.files import pace, sealed
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.ops import compat
from sparse_interp.ops.tuned import choice
from sparse_interp.training import hosts, metrics, ranges

_PHASE = 'tune'


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Times all variants of the cases of a configuration.

  Args:
    config: see experiments/benchmarks/tune.py.
    workdir: receives cases/ and tuned.json.

  Returns:
    The content of tuned.json.

  Raises:
    ValueError: a field is wrong, or the workdir is another machine's.
  """
  cases = make_cases(config)
  facts = about(workdir_lib.code_version())
  machine = {k: facts[k] for k in ('device', 'versions')}
  asked = config.to_dict() | {'machine': machine}
  del asked['budget']  # may be raised to go on
  path = pathlib.Path(workdir)
  begun, ran, found = time.monotonic(), 0, []
  with hosts.claimed(workdir, asked, _PHASE):
    for i, case in enumerate(cases):
      file = path / 'cases' / f'{case.name}.json'
      if file.exists():
        found.append(sealed.read_json(file, 'delete it and run again'))
        continue
      if time.monotonic() - begun > config.budget:
        _say(f'budget of {config.budget:.0f} s spent; the same command goes on')
        break
      found.append(tuning.time_case(case, config.copies, config.samples, _say))
      ran += 1
      sealed.write_json(file, found[-1])
      _finish(found, len(cases), facts, path)
      left = pace.seconds_left(begun, ran, ran + len(cases) - i - 1)
      _say(f'{i + 1}/{len(cases)} {_line(found[-1])}; {left:.0f} s left')
    return _finish(found, len(cases), facts, path)


def _say(text: str) -> None:
  metrics.say(_PHASE, text)


def _line(case: dict[str, Any]) -> str:
  """Who is fastest, and by how much against plain jax."""
  times = case['milliseconds']
  plain = min(t for n, t in times.items() if n.startswith(choice.PLAIN))
  ours = [t for n, t in times.items() if not n.startswith(choice.PLAIN)]
  won = choice.winner(times)
  verdict = f'{won} is taken' if won else 'plain jax stays'
  best = f'{plain / min(ours):.2f} times plain jax, ' if ours else ''
  return f'{case["operation"]} {case["size"]}: {best}{verdict}'


def _finish(found, asked, facts, path) -> dict[str, Any]:
  result = {
    'card': choice.card(),
    'about': facts,
    'cases_asked': asked,
    'cases': list(found),
  }
  workdir_lib.write_json(path / 'tuned.json', result)
  return result


def make_cases(config: config_dict.ConfigDict) -> list[variants.Variants]:
  """The cases of a configuration, in the order in which they are timed.

  Raises:
    ValueError: a field is wrong.
  """
  ranges.check_whole(config, {'copies': 1, 'samples': 1})
  ranges.check_number(config, 'budget', least=0)
  ranges.check_text(config, 'only')
  on_gpu = jax.default_backend() == 'gpu'
  interpret = None if on_gpu else compat.gpu_interpreter()
  makers = {
    'row_sparse': lambda c: variants.row_sparse_cases(
      c.sizes, c.densities, interpret
    ),
    'projection': lambda c: variants.projection_cases(
      c.sizes, c.density, interpret
    ),
    'abs_topk': lambda c: variants.abs_topk_cases(
      c.sizes, c.density, interpret
    ),
    'block_sparse': lambda c: variants.block_sparse_cases(
      c.sizes, c.density, interpret
    ),
  }
  cases = [
    case
    for name, make in makers.items()
    for case in make(config[name])
    if config.only in case.name
  ]
  if not cases:
    raise ValueError(
      f'only must be part of the name of a case, got {config.only!r}; choose '
      "e.g. 'row_sparse'."
    )
  return cases
