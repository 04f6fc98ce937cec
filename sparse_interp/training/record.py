"""What a checkpoint says of itself: its step and a fingerprint of every array.

The record is sealed, so that it can be believed before anything else of the
checkpoint is read.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax

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


def abstract(prints: Mapping[str, Any], where: Any) -> dict[str, Any]:
  """What arrays are read into.

  Args:
    prints: their fingerprints by name, e.g. 'params/h_0/mlp/c_fc/kernel'.
    where: sharding of all of them.

  Returns:
    Nested dicts, one a part of a name, of `jax.ShapeDtypeStruct`.
  """
  tree = {}
  for name, (dtype, shape, _) in prints.items():
    *path, last = name.split('/')
    node = tree
    for key in path:
      node = node.setdefault(key, {})
    node[last] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=where)
  return tree


def compare(tree: Any, expected: Mapping[str, Any]) -> None:
  """Raises ValueError unless the arrays are those of the fingerprints."""
  found, _ = fingerprint.look(tree)
  if names := fingerprint.differing(found, expected):
    raise ValueError(f'other numbers in {names[0]}{and_more(names)}')


def and_more(names: list[str]) -> str:
  """What follows the first of several names."""
  return f' and in {len(names) - 1} more' if len(names) > 1 else ''


def refusal(path: Any, error: Exception, remedy: str) -> ValueError:
  """What is said of a checkpoint that is not what was written."""
  if isinstance(error, OtherStepError):
    return ValueError(
      f'checkpoint must be under the number of its step, got {path} with '
      f'{error}; {remedy}.'
    )
  return ValueError(
    f'checkpoint must be complete and as it was written, got a damaged {path} '
    f'({_gist(error)}); {remedy}.'
  )


def _gist(error: Exception) -> str:
  """The first sentence of an error in one line."""
  kind = '' if type(error) is ValueError else f'{type(error).__name__}: '
  text = re.sub(r'\s+', ' ', f'{kind}{error}')
  return text if len(text) <= 120 else text[:117] + '...'
