"""What is not finite ends a run, which says where to go on from."""

import math
from collections.abc import Sequence
from typing import Any

import jax

from sparse_interp.training import checkpoints


def fetch(
  name: str, values: Sequence[Any], step: int, manager: Any, remedy: str
) -> list[float]:
  """Fetches one number of each of the updates up to `step`.

  Args:
    name: of the number.
    values: float scalars, some still on the devices; the last is that of
      `step`.
    step: number of updates made.
    manager: of the run's checkpoints.
    remedy: what to do about it, for the message.

  Raises:
    ValueError: one is not finite.
  """
  fetched = [float(value) for value in jax.device_get(values)]
  for i, value in enumerate(fetched):
    check(name, value, step - len(fetched) + i + 1, manager, remedy)
  return fetched


def check(
  name: str, value: float | int, step: int, manager: Any, remedy: str
) -> None:
  """Raises ValueError if a number of the run is not finite; see `fetch`."""
  if not math.isfinite(value):
    where = checkpoints.last_good(manager)
    raise ValueError(
      f'{name} must be finite, got {value} at step {step}; {where}; {remedy}.'
    )
