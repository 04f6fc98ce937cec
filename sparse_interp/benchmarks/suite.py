"""Runs cases within a time, checks each, and goes on where it was stopped."""

import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sparse_interp.benchmarks import timing
from sparse_interp.benchmarks.case import AbsentError, Case, error_of
from sparse_interp.files import pace, sealed

# Inputs of a case are copied until they exceed the caches of a GPU twice.
_CACHE_BYTES = 2 * 60e6
_MOST_COPIES = 8

Say = Callable[[str], None]


def run_case(
  case: Case, repetitions: int, seconds: float, seed: int
) -> dict[str, Any]:
  """Checks and times every competitor of a case.

  Args:
    case: what to time.
    repetitions: samples of each competitor.
    seconds: for each competitor, compilation and check not included.
    seed: of the inputs.

  Returns:
    What is written about the case; JSON values.
  """
  inputs = case.make(seed)
  expected = case.reference(inputs)
  results = {
    name: _run_competitor(case, name, inputs, expected, repetitions, seconds)
    for name in case.competitors
  }
  return {
    'name': case.name,
    'group': case.group,
    'parameters': dict(case.parameters),
    'flops': case.flops,
    'bytes': case.bytes,
    'tolerance': case.tolerance,
    'seed': seed,
    'results': results,
  }


def _run_competitor(case, name, inputs, expected, repetitions, seconds):
  competitor = case.competitors[name]
  try:
    run = competitor.prepare(inputs)
    # Copied: what is timed next may reuse the memory of a result.
    result = competitor.to_numpy(competitor.wait(run()))
    error, wrong = error_of(result, expected, case.exact)
    if wrong is None and error > case.tolerance:
      wrong = f'error {error:.2g}, allowed {case.tolerance:.2g}'
    if wrong is not None:
      return {'wrong': wrong}
    times = timing.measure([run], competitor, repetitions, seconds)
    if jax.default_backend() != 'cpu':
      copies = math.ceil(_CACHE_BYTES / max(case.bytes, 1))
      runs = [run]
      for _ in range(min(copies, _MOST_COPIES) - 1):
        runs.append(competitor.prepare(inputs))
      cold = timing.measure(runs, competitor, repetitions, seconds)
      times['cold_median_ms'] = cold['median_ms']
  except AbsentError as absent:
    return {'absent': str(absent)}
  # Also what jax and torch raise when memory runs out or a kernel is refused.
  except (MemoryError, RuntimeError, NotImplementedError) as failure:
    return {'failed': (str(failure).strip() or 'out of memory').splitlines()[0]}
  seconds_taken = times['median_ms'] / 1e3
  return {
    **times,
    'error': error,
    'flops_per_second': case.flops / seconds_taken,
    'bytes_per_second': case.bytes / seconds_taken,
  }


def run_cases(
  cases: Sequence[Case],
  directory: pathlib.Path,
  about: dict[str, Any],
  say: Say,
  repetitions: int,
  seconds: float,
  budget: float,
  seed: int,
) -> list[dict[str, Any]]:
  """Runs the cases that have no file yet, until the budget is spent.

  Args:
    cases: in the order in which they are run.
    directory: receives cases/<name>.json, as each is done.
    about: hardware and versions, written with every case.
    say: prints a line.
    repetitions: samples of each competitor.
    seconds: for the samples of one competitor.
    budget: seconds in all; no case is begun after.
    seed: of the inputs.

  Returns:
    What is known of the cases that are done.
  """
  done, ran, begun = [], 0, time.monotonic()
  for i, case in enumerate(cases):
    path = directory / 'cases' / f'{case.name}.json'
    if path.exists():
      done.append(sealed.read_json(path, 'delete it and run again'))
      continue
    spent = time.monotonic() - begun
    if spent > budget:
      say(
        f'budget of {budget:.0f} s spent, {len(cases) - i} cases left; the '
        'same command goes on'
      )
      break
    found = about | run_case(case, repetitions, seconds, seed)
    sealed.write_json(path, found)
    done.append(found)
    ran += 1
    left = pace.seconds_left(begun, ran, ran + len(cases) - i - 1)
    left = min(left, max(0, budget - (time.monotonic() - begun)))
    say(f'{i + 1}/{len(cases)} {line(found)}; {left:.0f} s left at most')
  return done


def line(found: dict[str, Any]) -> str:
  """One line on a case: medians of all who took part, the fastest first."""
  times, others = [], []
  for name, result in found['results'].items():
    if 'median_ms' in result:
      times.append(
        (result['median_ms'], f'{name} {result["median_ms"]:.3g} ms')
      )
    else:
      others.append(f'{name} {next(iter(result))}')
  return f'{found["name"]}: ' + ', '.join(
    [text for _, text in sorted(times)] + others
  )
