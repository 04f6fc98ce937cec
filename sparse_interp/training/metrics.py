"""Numbers of a run: metrics.jsonl, TensorBoard where installed, the console.

metrics.jsonl has one JSON object per logged step, in order. A checkpoint knows
how long the file was and its hash. A run that was killed and restarted from
step s compares them and drops the rows after s, so that its file ends equal to
that of an undisturbed run except for `tokens_per_second` and its like.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, TypedDict

import jax

from sparse_interp.files import metric_rows, regular, whole_file

try:
  import tensorboardX as tensorboard  # noqa: N813
except ImportError:  # an extra
  tensorboard = None

# Fields that depend on the machine and the moment, not on the run.
TIMING_FIELDS = ('tokens_per_second',)


class Saved(TypedDict):
  """How far metrics.jsonl was when a checkpoint was saved, and what it was."""

  bytes: int
  sha256: str


def check(workdir: str | pathlib.Path, saved: Saved) -> bytes:
  """Compares metrics.jsonl with what it was when a checkpoint was saved.

  Args:
    workdir: of the run.
    saved: from the progress of the checkpoint.

  Returns:
    The content of the file up to then.

  Raises:
    ValueError: the file is missing, shorter, or another one.
  """
  path = pathlib.Path(workdir) / metric_rows.NAME
  content = regular.read_bytes(path) if path.exists() else b''
  kept = content[: saved['bytes']]
  if hashlib.sha256(kept).hexdigest() == saved['sha256']:
    return kept
  if not path.exists():
    found = 'no such file'
  elif len(kept) < saved['bytes']:
    found = f'{len(kept)} bytes'
  else:
    found = 'other content'
  raise ValueError(
    f'{path} must begin with the {saved["bytes"]} bytes that it had at the '
    f'last checkpoint, got {found}; restore the file, or train again in '
    'another workdir.'
  )


class MetricsWriter:
  """Appends rows to metrics.jsonl and TensorBoard, on process 0 only."""

  def __init__(
    self, workdir: str | pathlib.Path, step: int, saved: Saved | None = None
  ):
    """Opens the files, dropping rows after `step`.

    Args:
      workdir: of the run.
      step: number of updates made before this process.
      saved: from the checkpoint of that step; None begins anew.

    Raises:
      ValueError: the rows up to `step` are not those that were written, or
        what follows are no rows.
    """
    self._file = self._board = None
    if jax.process_index() != 0:
      return
    path = pathlib.Path(workdir) / metric_rows.NAME
    kept = b'' if saved is None else check(workdir, saved)
    dropped = [row for row in metric_rows.read(path) if row['step'] > step]
    if dropped and saved is None:
      say(
        'metrics',
        f'no checkpoint: {len(dropped)} rows of {path} are written anew',
      )
    with whole_file.writing(path) as part:
      part.write_bytes(kept)
    self._bytes, self._digest = len(kept), hashlib.sha256(kept)
    self._file = path.open('ab')
    if tensorboard is not None:
      self._board = tensorboard.SummaryWriter(
        str(pathlib.Path(workdir) / 'tensorboard'), purge_step=step + 1
      )

  def write(self, row: Mapping[str, float | int]) -> None:
    """Writes one row; its 'step' is the number of updates made."""
    if self._file is None:
      return
    line = (json.dumps(row) + '\n').encode()
    self._file.write(line)
    self._file.flush()
    self._bytes += len(line)
    self._digest.update(line)
    if self._board is not None:
      for name, value in row.items():
        if name != 'step':
          self._board.add_scalar(name, value, int(row['step']))

  def save(self) -> Saved | None:
    """Makes sure of what was written; for the progress of a checkpoint."""
    if self._file is None:
      return None
    os.fsync(self._file.fileno())
    return {'bytes': self._bytes, 'sha256': self._digest.hexdigest()}

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
  step: int,
  total: int,
  loss: float,
  speed: float,
  left: float,
  unit: str = 'tokens',
) -> str:
  """E.g. 'step 1200/6000  loss 2.3456  41200 tokens/s  3 min 10 s left'."""
  shown = f'{speed:.0f}' if speed >= 10 else f'{speed:.2g}'
  return (
    f'step {step:>{len(str(total))}}/{total}  loss {loss:.4f}  '
    f'{shown} {unit}/s  {duration(left)} left'
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
  """Speed and time left, without the time of compilation."""

  def __init__(self, step: int, per_step: int):
    """Begins to count.

    Args:
      step: number of updates made before this process.
      per_step: what one step gets through, e.g. tokens.
    """
    self._first = step + 1
    self._per_step = per_step
    self._start = self._lap = (step, time.monotonic())

  def start_after_compilation(self, step: int, numbers: Any) -> None:
    """Waits for the first step of this process, and begins to count."""
    if step == self._first:
      jax.block_until_ready(numbers)
      self._start = self._lap = (step, time.monotonic())

  def lap(self, step: int, total: int) -> tuple[float, float]:
    """(what was got through per second since the last lap, seconds left).

    The time left follows the mean since the start, which has its share of
    validation and checkpoints; a lap has either none or too much of them.
    """
    now = (step, time.monotonic())
    left = (total - step) * _seconds_per_step(self._start, now)
    speed = self._per_step / _seconds_per_step(self._lap, now)
    self._lap = now
    return speed, left


def _seconds_per_step(
  begin: tuple[int, float], end: tuple[int, float]
) -> float:
  return max(end[1] - begin[1], 1e-9) / max(end[0] - begin[0], 1)
