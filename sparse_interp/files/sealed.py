"""JSON files that carry the hash of their own content.

A bit that flips anywhere in such a file, or a number that somebody edits, is
noticed when the file is read. Space and the order of keys decide nothing and
are not part of the hash.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from sparse_interp.files import regular, whole_file

# The key that holds the hash, last in the file.
SEAL = 'sha256'


def seal_of(value: Mapping[str, Any]) -> str:
  """Hash of JSON values, apart from the entry that holds such a hash."""
  rest = {key: entry for key, entry in value.items() if key != SEAL}
  text = json.dumps(rest, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
  """A JSON object as it comes back from a file, and its seal.

    >>> sealed = seal({'edges': 13})
    >>> unseal(json.dumps(sealed).encode())
    {'edges': 13}
    >>> unseal(json.dumps({**sealed, 'edges': 12}).encode())
    Traceback (most recent call last):
      ...
    ValueError: content that does not match its sha256

  Args:
    value: JSON values, tuples included.
  """
  value = json.loads(json.dumps(value))
  return {**value, SEAL: seal_of(value)}


def unseal(text: bytes, optional: bool = False) -> dict[str, Any]:
  """Reads a sealed JSON object, without its seal.

  Args:
    text: of the file.
    optional: whether an object without a seal will do, too: one that somebody
      wrote by hand. A bit that flips in the name of the seal leaves all else as
      it was.

  Raises:
    ValueError: it is not what was sealed; the message says what it is, as an
      end of a sentence.
  """
  try:
    value = json.loads(text.decode())
  except (ValueError, RecursionError) as error:
    what = ' '.join(str(error).split())
    raise ValueError(f'what is no JSON ({what})') from error
  if not isinstance(value, dict):
    raise ValueError(f'{type(value).__name__} instead of an object')
  found = value.get(SEAL)
  if found is None and optional:
    return value
  if found is None:
    raise ValueError(f'no {SEAL} (an earlier version wrote none)')
  if found != seal_of(value):
    raise ValueError(f'content that does not match its {SEAL}')
  del value[SEAL]
  return value


def write_json(path: str | pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a JSON object with its seal, in one step.

  Args:
    path: of the file.
    value: JSON values, tuples included.
  """
  with whole_file.writing(path) as part:
    part.write_text(json.dumps(seal(value), indent=2) + '\n')


def read_json(path: str | pathlib.Path, remedy: str) -> dict[str, Any]:
  """Reads what `write_json` wrote, without its seal.

  Args:
    path: of the file, which must exist.
    remedy: what to do if it is damaged, e.g. 'delete it and run again'.

  Raises:
    ValueError: it is not what was written.
    OSError: it cannot be read.
  """
  try:
    return unseal(regular.read_bytes(path))
  except ValueError as error:
    raise ValueError(
      f'{path} must be as it was written, got {error}; {remedy}.'
    ) from error
