"""What only one of several processes of a run does, and what all agree on."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparse_interp.files import interrupts
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.training import metrics

_MESSAGE_BYTES = 4096
T = TypeVar('T')


def leads() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def leader_first(work: Callable[[], T]) -> T:
  """Does the same in all processes, in the first one before the others.

  Raises:
    ValueError: in all of them, with the message of the first one's.
  """
  if jax.process_count() == 1:
    return work()
  error: Exception | None = None
  result: Any = None
  if leads():
    try:
      result = work()
    except (ValueError, OSError) as failure:
      error = failure
  message = str(error or '') or (repr(error) if error else '')
  told = np.zeros(_MESSAGE_BYTES, np.uint8)
  encoded = message.encode()[:_MESSAGE_BYTES]
  told[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  told = np.asarray(multihost_utils.broadcast_one_to_all(told))
  if error is not None:
    raise error
  if told.any():
    raise ValueError(told.tobytes().rstrip(b'\0').decode(errors='replace'))
  return result if leads() else work()


@contextlib.contextmanager
def claimed(
  workdir: str | pathlib.Path, config: Mapping[str, Any], phase: str
) -> Iterator[workdir_lib.Claim]:
  """`workdir.claimed`, once for all processes of a run.

  Args:
    workdir: the directory.
    config: what is asked for, JSON values.
    phase: of the lines on the console.

  Raises:
    ValueError: in all processes; see `workdir.claimed`.
    OSError: as there.
  """
  with contextlib.ExitStack() as stack:
    claim = leader_first(
      lambda: stack.enter_context(workdir_lib.claimed(workdir, config, leads()))
    )
    if not claim.locked:
      metrics.say(
        phase,
        f'the file system of {workdir} has no locks: see to it that no other '
        'run writes there',
      )
    yield claim


def any_stops(stop: interrupts.Stop, row_due: bool) -> bool:
  """Whether to stop; several processes ask each other, but only at rows."""
  if jax.process_count() == 1:
    return stop.is_set()
  if not row_due:
    return False
  told = np.array(stop.is_set())
  return bool(np.any(multihost_utils.process_allgather(told)))
