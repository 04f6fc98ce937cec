"""How far a loop over pairs is, said as the other phases of pruning say it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from sparse_interp.files import pace

# Called with what there is to show: phase, step, steps, task_loss, nodes,
# seconds_left and others, as far as they apply.
Progress = Callable[[Mapping[str, Any]], None]
# Called as count(done, in all).
Count = Callable[[int, int], None]


def counting(
  progress: Progress | None,
  phase: str,
  passes: int = 1,
) -> Count | None:
  """Turns numbers of pairs into what a progress function takes.

  Args:
    progress: takes phase, pairs, of and seconds_left; None for nobody.
    phase: what is done with the pairs.
    passes: how often the count starts again; the time left is that of all.

  Returns:
    A function to be called as count(done, in all); None without `progress`.
  """
  if progress is None:
    return None
  begun, before, last = time.monotonic(), 0, 0

  def count(done: int, total: int) -> None:
    nonlocal before, last
    if done <= last:
      before += total
    last = done
    counted, whole = before + done, passes * total
    progress(
      {
        'phase': phase,
        'pairs': counted,
        'of': whole,
        'seconds_left': pace.seconds_left(begun, counted, whole),
      }
    )

  return count
