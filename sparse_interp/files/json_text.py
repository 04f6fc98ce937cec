"""JSON of other people: read by one function, whatever is wrong with it.

The reader of the standard library takes what JSON does not allow (NaN, a key
twice, of which the last counts), and where brackets are nested deep it does not
say so by a ValueError.
"""

import json
import math
import os
from typing import Any

from sparse_interp.files import regular

# What is nested deeper is nobody's data. Python itself stops at about 1000,
# and what walks through the values later may need several calls a level.
DEEPEST = 100
MOST_BYTES = 16 * 2**20
_BE_JSON = 'be json'


class JsonError(ValueError):
  """What is wrong with a text.

  Attributes:
    constraint: which it breaks, to complete 'must'.
    found: what it has instead, to complete 'got'; also the message.
  """

  def __init__(self, constraint: str, found: str):
    super().__init__(found)
    self.constraint, self.found = constraint, found


def parse(text: str | bytes, strict: bool = True, finite: bool = True) -> Any:
  """The value of a text.

    >>> parse('{"loss": 0.5}')
    {'loss': 0.5}
    >>> parse('{"loss": 0.5, "loss": 0.1}')
    Traceback (most recent call last):
      ...
    sparse_interp.files.json_text.JsonError: 'loss' twice

  Args:
    text: JSON; bytes are UTF-8, with or without a byte order mark.
    strict: refuse a key that is there twice in one object, half a surrogate
      pair, what is nested deeper than DEEPEST, and numbers that are not finite.
    finite: refuse the last; without it, they are for the caller to look at.

  Raises:
    JsonError: it is no such JSON; says what was found in at most 120
      characters.
  """
  hooks: dict[str, Any] = {'object_pairs_hook': _unique} if strict else {}
  if strict and finite:
    hooks |= {'parse_constant': _refuse, 'parse_float': _finite}
  try:
    if isinstance(text, bytes):
      text = text.decode()
    value = json.loads(text.removeprefix('\ufeff'), **hooks)
  except RecursionError:
    raise _too_deep() from None
  except UnicodeDecodeError as error:
    found = f'text that is not UTF-8 at byte {error.start:,}'
    raise JsonError(_BE_JSON, found) from None
  except JsonError:
    raise
  except ValueError as error:
    raise JsonError(_BE_JSON, f'other text ({_short(str(error))})') from None
  if strict:
    _check_depth_and_text(value)
  return value


def read(
  path: str | os.PathLike,
  remedy: str,
  most: int = MOST_BYTES,
  finite: bool = True,
) -> Any:
  """The value in a file, read strictly; see `parse`.

  Args:
    path: of the file.
    remedy: what to do if it is damaged, e.g. 'copy it again'.
    most: bytes that it may have.
    finite: as in `parse`.

  Raises:
    OSError: if there is none, or it may not be read.
    ValueError: if it is no regular file, larger, or not such JSON.
  """
  content = regular.read_bytes(path, most)
  try:
    return parse(content, finite=finite)
  except JsonError as error:
    raise ValueError(
      f'{os.fspath(path)} must {error.constraint}, got {error}; {remedy}.'
    ) from None


def read_object(
  path: str | os.PathLike,
  remedy: str,
  most: int = MOST_BYTES,
  finite: bool = True,
) -> dict[str, Any]:
  """The object in a file; see `read`."""
  value = read(path, remedy, most, finite)
  if not isinstance(value, dict):
    raise ValueError(
      f'{os.fspath(path)} must be a json object, got {type(value).__name__}; '
      f'{remedy}.'
    )
  return value


def kind(value: Any) -> str:
  """What JSON calls a value: 'a number', 'a list', 'null', ..."""
  if value is None or isinstance(value, bool):
    return json.dumps(value)
  names = {dict: 'an object', list: 'a list', str: 'text'}
  return names.get(type(value), 'a number')


def _unique(pairs):
  value = dict(pairs)
  if len(value) < len(pairs):
    seen = set()
    for key, _ in pairs:
      if key in seen:
        raise JsonError('hold each key once', f'{_short(repr(key))} twice')
      seen.add(key)
  return value


def _refuse(constant):
  raise JsonError(_BE_JSON, f'{constant}, which is no number of JSON')


def _finite(digits):
  number = float(digits)
  if not math.isfinite(number):
    raise JsonError('hold finite numbers', _short(digits))
  return number


def _too_deep():
  return JsonError('be json of bearable depth', 'values nested too deep')


def _check_depth_and_text(value):
  level, depth = [value], 0
  while level:
    if depth > DEEPEST:
      raise _too_deep()
    below = []
    for part in level:
      if isinstance(part, dict):
        below += part.values()
        below += part.keys()
      elif isinstance(part, list):
        below += part
      elif isinstance(part, str) and not _is_text(part):
        raise JsonError('hold whole characters', 'half a surrogate pair')
    level, depth = below, depth + 1


def _is_text(text):
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _short(text):
  text = ' '.join(text.split())
  return text if len(text) <= 60 else f'{text[:57]}...'
