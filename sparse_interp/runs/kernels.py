"""Kernels beside their competitors: sizes swept, each checked, then timed.

Every case is written when it is done; the same command goes on where it was
stopped. At the end kernels.json holds all cases and roofline.svg shows them
against the roofs that were measured in the same process.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from sparse_interp.benchmarks import (
  block_cases,
  ceilings,
  matmul_cases,
  roofline,
  suite,
  topk_cases,
)
from sparse_interp.benchmarks.about import about
from sparse_interp.benchmarks.case import Case
from sparse_interp.files import whole_file
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.training import hosts, metrics, ranges

_PHASE = 'kernels'
_DTYPES = ('float32', 'bfloat16', 'float16')


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Times all cases of a configuration.

  Args:
    config: see experiments/benchmarks/kernels.py.
    workdir: receives cases/, kernels.json and, where matplotlib is installed,
      roofline.svg.

  Returns:
    The content of kernels.json.

  Raises:
    ValueError: a field is wrong, or the workdir is another machine's.
  """
  cases = make_cases(config)
  facts = about(workdir_lib.code_version())
  # Cases of another machine or version must not be mixed with these.
  machine = {k: facts[k] for k in ('device', 'processor', 'versions')}
  budget = config.budget
  asked = config.to_dict() | {'machine': machine}
  del asked['budget']  # may be raised to go on
  with hosts.claimed(workdir, asked, _PHASE):
    found = suite.run_cases(
      cases,
      pathlib.Path(workdir),
      {'date': facts['date']},
      lambda text: metrics.say(_PHASE, text),
      config.repetitions,
      config.seconds,
      budget,
      config.seed,
    )
    return _finish(found, len(cases), facts, pathlib.Path(workdir))


def _finish(
  found: Sequence[dict[str, Any]],
  asked: int,
  facts: dict[str, Any],
  workdir: pathlib.Path,
) -> dict[str, Any]:
  """Writes what is known, and the plot of it."""
  repetitions = [
    result['repetitions']
    for case in found
    for result in case['results'].values()
    if 'repetitions' in result
  ]
  result = {
    'about': facts,
    'cases_done': len(found),
    'cases_asked': asked,
    'least_repetitions': min(repetitions, default=0),
    'roofs': list(roofline.roofs(found) or []),
    'cases': list(found),
  }
  path = workdir / 'kernels.json'
  workdir_lib.write_json(path, result)
  _plot(found, f'{facts["device"]}, {facts["date"]}', workdir / 'roofline.svg')
  metrics.say(_PHASE, f'{len(found)}/{asked} cases; {path}')
  return result


def _plot(
  found: Sequence[dict[str, Any]], title: str, path: pathlib.Path
) -> None:
  """Draws the roofline, if there are points and something to draw it with."""
  try:
    plot = roofline.svg(found, title)
  except ImportError as error:
    metrics.say(
      _PHASE,
      f'{path.name} is left out, since it needs matplotlib ({error}); run pip '
      "install -e '.[plot]' and the same command again.",
    )
    return
  if plot is not None:
    with whole_file.writing(path) as part:
      part.write_text(plot, encoding='utf-8')


def _check(config: config_dict.ConfigDict) -> None:
  ranges.check_seed(config)
  ranges.check_whole(
    config, {'repetitions': 1, 'ceiling.width': 1, 'ceiling.entries': 1}
  )
  ranges.check_text(config, 'only')
  ranges.check_number(config, 'seconds', least=0)
  ranges.check_number(config, 'budget', least=0)
  for dtype in config.dtypes:
    if dtype not in _DTYPES:
      raise ValueError(
        f'dtypes must be among {", ".join(_DTYPES)}, got {dtype!r}; remove it.'
      )
  for name in ('abs_topk', 'projection'):
    ranges.check_number(config, f'{name}.density', above=0, most=1)
  for name in ('row_sparse', 'block_sparse'):
    for density in config[name].densities:
      if problem := ranges.number_problem(density, above=0, most=1):
        raise ValueError(
          f'{name}.densities must each be {problem}, got {density!r}; choose '
          'e.g. (0.03125,).'
        )
  counts = {'abs_topk': 2, 'projection': 0, 'row_sparse': 3, 'block_sparse': 3}
  for name, count in counts.items():
    for size in config[name].sizes:
      entries = size if count and isinstance(size, tuple | list) else [size]
      whole = all(type(n) is int and n >= 1 for n in entries)
      if not whole or len(entries) != max(count, 1):
        raise ValueError(
          f'{name}.sizes must each be {max(count, 1)} whole numbers above 0, '
          f'got {size!r}; correct it.'
        )
  for block in config.block_sparse.blocks:
    if type(block) is not int or block < 1:
      raise ValueError(
        'block_sparse.blocks must each be a whole number above 0, got '
        f'{block!r}; choose e.g. (16,).'
      )


def make_cases(config: config_dict.ConfigDict) -> list[Case]:
  """The cases that a configuration asks for.

  Raises:
    ValueError: a field is wrong, or `only` leaves nothing.
  """
  _check(config)
  cases = []
  for dtype in config.dtypes:
    cases += ceilings.ceiling_cases(
      config.ceiling.width, config.ceiling.entries, dtype
    )
  cases += topk_cases.abs_topk_cases(
    config.abs_topk.sizes, config.abs_topk.density
  )
  cases += topk_cases.projection_cases(
    config.projection.sizes, config.projection.density
  )
  for dtype in config.dtypes:
    cases += matmul_cases.row_sparse_cases(
      config.row_sparse.sizes, config.row_sparse.densities, dtype
    )
    cases += block_cases.block_sparse_cases(
      config.block_sparse.sizes,
      config.block_sparse.blocks,
      config.block_sparse.densities,
      dtype,
    )
  # The copy has no dtype and is the same case for all.
  cases = list({case.name: case for case in cases}.values())
  kept = [case for case in cases if config.only in case.name]
  if not kept:
    raise ValueError(
      f'only must be part of the name of a case, got {config.only!r}; choose '
      f'e.g. {cases[0].name!r}.'
    )
  return kept
