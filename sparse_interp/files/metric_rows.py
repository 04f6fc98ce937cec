"""metrics.jsonl: an object for each step that was logged, in order."""

import json
import os
import pathlib
from typing import Any

from sparse_interp.files import regular

NAME = 'metrics.jsonl'


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads the rows; a last line torn by a kill is left out.

  Returns:
    The rows in order; empty if there is no such file.

  Raises:
    ValueError: any other line is no row, or is out of order.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  rows, last = [], 0
  *lines, torn = regular.read_bytes(path).split(b'\n')
  for number, line in enumerate(lines, start=1):
    try:
      row = json.loads(line.decode())
      step = row['step']
      if type(step) is not int or step <= last:
        raise ValueError(f'step {step!r} after step {last}')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise ValueError(
        f'{path} must hold an object with a later step in every line, got '
        f'{line[:40].decode(errors="replace")!r} in line {number} '
        f'({_gist(error)}); restore the file, or train again in another '
        'workdir.'
      ) from error
    rows.append(row)
    last = step
  del torn  # what a kill left of a row that was not saved
  return rows


def _gist(error: Exception) -> str:
  return ' '.join(f'{type(error).__name__}: {error}'.split())[:80]
