"""Times all variants of a case, each compiled once and checked.

Copies of the case, on inputs of their own, are one function, so that neither
the time to start it nor what a cache keeps of the run before counts.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.benchmarks.variants import Variants

# A variant this much slower than the best is given up after a few samples.
_HOPELESS = 3.0
_FEW_SAMPLES = 3


def time_case(
  case: Variants, copies: int, samples: int, say: Callable[[str], None]
) -> dict[str, Any]:
  """Checks and times every way of a case.

  Args:
    case: what to time.
    copies: in one call, each on other inputs.
    samples: calls that are timed.
    say: prints a line for each way.

  Returns:
    What is written about the case; JSON values. Ways that are wrong or cannot
    be compiled are named with the reason.
  """
  keys = jax.random.split(jax.random.key(0), copies)
  inputs, shared = [case.draw(key) for key in keys], case.rest()
  expected, found, failed, spread = None, {}, {}, {}
  for name, way in case.ways.items():
    begun = time.perf_counter()
    try:
      run = jax.jit(
        lambda inputs, shared, way=way: [way(x, *shared) for x in inputs]
      )
      results = jax.block_until_ready(run(inputs, shared))
      if expected is None:
        expected = results[-1]
      if problem := _problem(results[-1], expected, case.tolerance):
        raise ValueError(problem)
      del results
      best = min(found.values(), default=np.inf)
      times = _samples(lambda run=run: run(inputs, shared), samples, best)
    # Also what jax raises when a kernel is refused or memory runs out.
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
      first = (str(error).strip() or type(error).__name__).splitlines()[0]
      failed[name] = first[:300]
      say(f'{case.name} {name}: {failed[name]}')
      continue
    milliseconds = [1e3 * t / copies for t in times]
    found[name] = float(np.median(milliseconds))
    spread[name] = [float(q) for q in np.quantile(milliseconds, [0.25, 0.75])]
    say(
      f'{case.name} {name}: {found[name]:.4f} ms, {len(times)} samples, '
      f'{time.perf_counter() - begun:.1f} s with compilation'
    )
  return {
    'operation': case.operation,
    'size': dict(case.size),
    'milliseconds': found,
    'quartiles': spread,
    'failed': failed,
  }


def _samples(run: Callable[[], Any], count: int, best: float) -> list[float]:
  jax.block_until_ready(run())
  times = []
  while len(times) < count:
    begun = time.perf_counter()
    jax.block_until_ready(run())
    times.append(time.perf_counter() - begun)
    hopeless = best * _HOPELESS < np.median(times) * 1e3
    if len(times) == _FEW_SAMPLES and hopeless:
      break
  return times


def _problem(result: Any, expected: Any, tolerance: float) -> str | None:
  """What is wrong with a result; None if nothing is."""
  if result.shape != expected.shape or result.dtype != expected.dtype:
    return f'{result.dtype}{result.shape}, not {expected.dtype}{expected.shape}'
  if not tolerance:
    same = bool(jnp.array_equal(result, expected))
    return None if same else 'other entries than the reference'
  ours, theirs = (a.astype(jnp.float32) for a in (result, expected))
  error = jnp.max(jnp.abs(ours - theirs)) / jnp.max(jnp.abs(theirs))
  error = float(error)
  fits = error <= tolerance
  return None if fits else f'error {error:.2g}, allowed {tolerance:.2g}'
