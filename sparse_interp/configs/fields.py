"""Fields of a configuration by their dotted names, and what they may hold."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from ml_collections import config_dict

_WORDS = {
  bool: 'True or False',
  int: 'a whole number',
  float: 'a finite number',
  str: 'text',
  tuple: 'a tuple',
}


@dataclasses.dataclass(frozen=True)
class Field:
  """What a field may hold.

  Attributes:
    kind: type of its values; None where nothing is known.
    optional: whether None may stand for a value.
    default: a value that it may hold.
  """

  kind: type | None
  optional: bool
  default: Any

  @property
  def words(self) -> str:
    """What it must be, for a person."""
    words = _WORDS.get(self.kind, 'a value')
    return f'{words} or None' if self.optional else words


def of_config(
  config: config_dict.ConfigDict, prefix: str = ''
) -> dict[str, Field]:
  """{dotted name: field} of all that are no sections, in their order.

  A field that is a reference, as `config_dict.placeholder` makes it, may be
  None, whatever it was set to later.
  """
  found = {}
  for name, value in config.iteritems(preserve_field_references=True):
    path = f'{prefix}{name}'
    if isinstance(value, config_dict.ConfigDict):
      found |= of_config(value, f'{path}.')
    elif isinstance(value, config_dict.FieldReference):
      found[path] = _field(value.get_type(), True, value.get())
    else:
      found[path] = _field(type(value), value is None, value)
  return found


def of_dataclass(cls: Any) -> dict[str, Field]:
  """{name: field} of a dataclass whose annotations are plain types."""
  hints = typing.get_type_hints(cls)
  return {
    field.name: _field(hints[field.name], False, field.default)
    for field in dataclasses.fields(cls)
  }


def _field(hint: Any, optional: bool, default: Any) -> Field:
  if isinstance(hint, types.UnionType):
    kinds = hint.__args__
    optional = optional or type(None) in kinds
    # float | int is a number.
    hint = next(kind for kind in kinds if kind is not type(None))
  kind = typing.get_origin(hint) or hint
  kind = tuple if kind is list else kind
  return Field(kind if kind in _WORDS else None, optional, default)


def problem(value: Any, field: Field) -> str | None:
  """What a value must be and is not; None if all is well."""
  if value is None and (field.optional or field.kind is None):
    return None
  if field.kind is None or _is_a(value, field.kind):
    elements = _elements_problem(value, field)
    return elements and f'{field.words} {elements}'
  return field.words


def _is_a(value: Any, kind: type) -> bool:
  if kind is float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
  if kind is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, (tuple, list) if kind is tuple else kind)


def _elements_problem(value: Any, field: Field) -> str | None:
  """The same for what is in a tuple: all must be like the default's first."""
  if not (field.kind is tuple and field.default and value):
    return None
  like = field.default[0]
  wrong = [one for one in value if not _alike(one, like)]
  return f'of values like {like!r} (not {wrong[0]!r})' if wrong else None


def _alike(value: Any, like: Any) -> bool:
  if isinstance(like, tuple | list):
    same = isinstance(value, tuple | list) and len(value) == len(like)
    return same and all(map(_alike, value, like))
  kind = float if isinstance(like, float) else type(like)
  # A list of densities may begin with 1.
  return _is_a(value, kind) or (kind is int and _is_a(value, float))


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
  """The name among those known that somebody may have meant."""
  known = list(known)
  last = name.rpartition('.')[2]
  # The section forgotten, or another one.
  same = [other for other in known if other.rpartition('.')[2] == last]
  close = difflib.get_close_matches(name, known, 1, 0.7)
  beside = [n for n in known if n.rpartition('.')[0] == name.rpartition('.')[0]]
  close = difflib.get_close_matches(name, beside, 1, 0.7) + close
  return next(iter(same + close), None)


def flat(
  config: config_dict.ConfigDict, prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of all that are no sections."""
  for name, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      yield from flat(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def names_in(text: str | Iterable[str]) -> list[str]:
  """Names with commas between, spaces around them as one likes."""
  names = text.split(',') if isinstance(text, str) else map(str, text)
  return [name.strip() for name in names if name.strip()]
