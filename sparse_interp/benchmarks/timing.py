"""Medians and spread of repeated runs of one function."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparse_interp.benchmarks.case import Competitor, Run

# A sample is made of so many runs that the clock and one dispatch do not show,
# and that a system which has woken two threads on one core moves one of them:
# single calls of half a millisecond took twice as long for hundreds in a row.
_SAMPLE_SECONDS = 20e-3
_MOST_RUNS_PER_SAMPLE = 256


def measure(
  runs: Sequence[Run],
  competitor: Competitor,
  repetitions: int,
  seconds: float,
) -> dict[str, Any]:
  """Times runs one after the other.

  Args:
    runs: called in turn; several, on inputs of their own, keep caches cold.
    competitor: its `wait` ends a sample.
    repetitions: samples wanted, at least 20 for a figure that is published.
    seconds: end before the next sample once this has passed.

  Returns:
    Median and quartiles in milliseconds, samples, and runs in each.
  """
  for run in runs:
    competitor.wait(run())  # compiles and warms up
  position = 0

  def sample(count):
    nonlocal position
    begun = time.perf_counter()
    for _ in range(count):
      result = runs[position % len(runs)]()
      position += 1
    competitor.wait(result)
    return (time.perf_counter() - begun) / count

  begun = time.perf_counter()
  once = max(min(sample(1) for _ in range(2)), 1e-7)
  count = int(np.clip(_SAMPLE_SECONDS / once, 1, _MOST_RUNS_PER_SAMPLE))
  samples = []
  while len(samples) < repetitions:
    samples.append(sample(count))
    if time.perf_counter() - begun > seconds:
      break
  low, median, high = np.quantile(samples, [0.25, 0.5, 0.75]) * 1e3
  return {
    'median_ms': float(median),
    'quartiles_ms': [float(low), float(high)],
    'repetitions': len(samples),
    'runs_per_repetition': count,
  }
