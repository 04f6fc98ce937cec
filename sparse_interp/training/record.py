"""What a checkpoint says of itself: its step and a fingerprint of every array.

The record is sealed, so that it can be believed before anything else of the
checkpoint is read.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from sparse_interp.files import sealed
from sparse_interp.training import fingerprint


class OtherStepError(ValueError):
  """A checkpoint under a number that is not its own."""


def make(
  step: int, tree: Any, progress: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
  """Looks at a state before it is saved.

  Args:
    step: of the state.
    tree: its arrays.
    progress: JSON values of what lives on the host.

  Returns:
    The record, and the names of tensors with an entry that is not finite.
  """
  arrays, broken = fingerprint.look(tree)
  record = {'step': step, 'arrays': arrays, 'progress': progress}
  return sealed.seal(record), broken


def read(path: pathlib.Path, step: int) -> dict[str, Any]:
  """Reads the record of a checkpoint.

  Args:
    path: of the record.
    step: that the directory of the checkpoint names.

  Returns:
    `step`, `arrays` and `progress`.

  Raises:
    OtherStepError: it is another step's.
    ValueError: it is damaged.
    OSError: it cannot be read.
  """
  record = sealed.unseal(path.read_bytes())
  if record['step'] != step:
    raise OtherStepError(f'step {record["step"]} inside')
  return record


def of_params(record: Mapping[str, Any]) -> dict[str, Any]:
  """Fingerprints of parameters, without those of the optimizer's state."""
  return {
    name: found
    for name, found in record['arrays'].items()
    if name.startswith('params/')
  }


def compare(tree: Any, expected: Mapping[str, Any]) -> None:
  """Raises ValueError unless the arrays are those of the fingerprints."""
  found, _ = fingerprint.look(tree)
  if names := fingerprint.differing(found, expected):
    raise ValueError(f'other numbers in {names[0]}{and_more(names)}')


def and_more(names: list[str]) -> str:
  """What follows the first of several names."""
  return f' and in {len(names) - 1} more' if len(names) > 1 else ''
