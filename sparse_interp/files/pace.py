"""How long the rest of a loop will take, at the pace of what is done."""

import time


def seconds_left(begun: float, done: int, total: int) -> float:
  """Seconds until all is done.

  Args:
    begun: what `time.monotonic` was when none was done.
    done: how many are, at least one.
    total: of how many.
  """
  return (time.monotonic() - begun) / done * (total - done)
