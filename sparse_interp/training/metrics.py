"""Numbers of a run: metrics.jsonl, TensorBoard where installed, the console.

metrics.jsonl has one JSON object per logged step, in order. A run that was
killed and restarted from step s first drops the rows after s, so that its file
ends equal to that of an undisturbed run except for `tokens_per_second`.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax

from sparse_interp.files import whole_file

try:
  import tensorboardX as tensorboard  # noqa: N813
except ImportError:  # an extra
  tensorboard = None

# Fields that depend on the machine and the moment, not on the run.
TIMING_FIELDS = ('tokens_per_second',)


def read_rows(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads metrics.jsonl; a line torn by a kill, always the last, is left out.

  Returns:
    The rows in order; empty if there is no such file.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().split('\n'):
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return rows


class MetricsWriter:
  """Appends rows to metrics.jsonl and TensorBoard, on process 0 only."""

  def __init__(self, workdir: str | pathlib.Path, step: int):
    """Opens the files, dropping rows after `step`."""
    self._file = self._board = None
    if jax.process_index() != 0:
      return
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    rows = [row for row in read_rows(path) if row['step'] <= step]
    with whole_file.writing(path) as part:
      part.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    self._file = path.open('a')
    if tensorboard is not None:
      self._board = tensorboard.SummaryWriter(
        str(pathlib.Path(workdir) / 'tensorboard'), purge_step=step + 1
      )

  def write(self, row: Mapping[str, float | int]) -> None:
    """Writes one row; its 'step' is the number of updates made."""
    if self._file is None:
      return
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()
    if self._board is not None:
      for name, value in row.items():
        if name != 'step':
          self._board.add_scalar(name, value, row['step'])

  def close(self) -> None:
    """Closes the files."""
    if self._file is not None:
      self._file.close()
    if self._board is not None:
      self._board.close()


def say(phase: str, text: str) -> None:
  """Prints one progress line, on process 0 only."""
  if jax.process_index() == 0:
    print(f'{phase:<10} {text}', flush=True)


def progress_line(
  step: int, total: int, loss: float, tokens_per_second: float, left: float
) -> str:
  """E.g. 'step 1200/6000  loss 2.3456  41200 tokens/s  3 min 10 s left'."""
  return (
    f'step {step:>{len(str(total))}}/{total}  loss {loss:.4f}  '
    f'{tokens_per_second:.0f} tokens/s  {duration(left)} left'
  )


def duration(seconds: float | int) -> str:
  """E.g. '42 s', '3 min 10 s', '5 h 02 min'."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 3600:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'


class Clock:
  """Tokens per second and time left, without the time of compilation."""

  def __init__(self, step: int, tokens_per_step: int):
    """Begins at `step`, the number of updates made before this process."""
    self._first = step + 1
    self._tokens_per_step = tokens_per_step
    self._start = self._lap = (step, time.monotonic())

  def start_after_compilation(self, step: int, numbers: Any) -> None:
    """Waits for the first step of this process, and begins to count."""
    if step == self._first:
      jax.block_until_ready(numbers)
      self._start = self._lap = (step, time.monotonic())

  def lap(self, step: int, total: int) -> tuple[float, float]:
    """(tokens per second since the last lap, seconds left).

    The time left follows the mean since the start, which has its share of
    validation and checkpoints; a lap has either none or too much of them.
    """
    now = (step, time.monotonic())
    left = (total - step) * _seconds_per_step(self._start, now)
    speed = self._tokens_per_step / _seconds_per_step(self._lap, now)
    self._lap = now
    return speed, left


def _seconds_per_step(
  begin: tuple[int, float], end: tuple[int, float]
) -> float:
  return max(end[1] - begin[1], 1e-9) / max(end[0] - begin[0], 1)
