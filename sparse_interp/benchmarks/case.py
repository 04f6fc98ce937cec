"""What is timed: a case, its competitors, and the numbers that come of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

# Arrays on the host, by name.
Inputs = Mapping[str, Any]
# Called once, starts one run; the result may still be under way.
Run = Callable[[], Any]


class AbsentError(Exception):
  """A competitor cannot take part; the message says why."""


@dataclasses.dataclass(frozen=True)
class Competitor:
  """One way to compute what a case asks for.

  Attributes:
    prepare: moves inputs to the device and compiles; returns what is timed.
      Raises `AbsentError` where something is not installed or does not fit.
    wait: blocks until a result is there.
    to_numpy: a result as numpy arrays to be compared with the reference.
  """

  prepare: Callable[[Inputs], Run]
  wait: Callable[[Any], Any]
  to_numpy: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """A computation of one size, with those who compete at it.

  Attributes:
    name: unique; the name of its file of results.
    group: cases of a group are one plot and one table.
    parameters: what is swept, for the table: numbers and words.
    make: seed -> random inputs on the host.
    reference: inputs -> expected arrays, by plain numpy.
    competitors: by name, the first is ours.
    tolerance: largest error allowed, relative to the largest entry.
    flops: floating point operations that the result needs, zeros left out.
    bytes: that must be read and written at least.
    exact: whether zeros must be where the reference has them.
  """

  name: str
  group: str
  parameters: Mapping[str, Any]
  make: Callable[[int], Inputs]
  reference: Callable[[Inputs], Any]
  competitors: Mapping[str, Competitor]
  tolerance: float
  flops: float | int
  bytes: float | int
  exact: bool = False


def as_arrays(result: Any) -> list[Shaped[np.ndarray, '...']]:
  """A result as a list of arrays, float32 or integer."""
  several = isinstance(result, tuple | list)
  arrays = [np.asarray(a) for a in (result if several else [result])]
  return [
    a.astype(np.float32) if a.dtype.kind not in 'iub' else a for a in arrays
  ]


def error_of(
  result: Any, expected: Any, exact: bool
) -> tuple[float, str | None]:
  """How far a result is from the reference.

  Returns:
    The largest difference, relative to the largest expected magnitude, and in
    words what else is wrong: a shape, NaN, or (with `exact`) other zeros.
  """
  worst = 0.0
  results, expecteds = as_arrays(result), as_arrays(expected)
  if len(results) != len(expecteds):
    return np.inf, f'{len(results)} arrays instead of {len(expecteds)}'
  for ours, theirs in zip(results, expecteds, strict=True):
    if ours.shape != theirs.shape:
      return np.inf, f'shape {ours.shape} instead of {theirs.shape}'
    if not np.isfinite(ours).all():
      return np.inf, 'not finite'
    if exact and ((ours != 0) != (theirs != 0)).any():
      return np.inf, 'other entries are zero'
    scale = max(float(np.abs(theirs).max(initial=0)), 1e-30)
    difference = ours - theirs
    worst = max(worst, float(np.abs(difference).max(initial=0) / scale))
  return worst, None
