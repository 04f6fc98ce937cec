"""Sections of a configuration that are the fields of a dataclass.

The dataclass has the defaults, and a configuration says where it differs. All
fields are there, so that each can be set from the command line; those that may
be None accept `None` there as well as a value. Needs neither jax nor flax: a
configuration is read in an instant.
"""

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import config_dict

_PLAIN = (bool, int, float, str)


def _type_of(kind: type) -> Any:
  """What a field of this kind holds; float fields take integers, too."""
  return float | int | None if kind is float else kind | None


def optional(kind: type, value: Any = None) -> config_dict.FieldReference:
  """A field that holds None or a value: bool, int, float or str.

  A `config_dict.placeholder` cannot be set back to None on the command line.

  Args:
    kind: type of the values.
    value: to begin with.
  """
  return config_dict.FieldReference(value, field_type=_type_of(kind))


def section(
  kind: Any, leave_out: Collection[str] = (), **values: Any
) -> config_dict.ConfigDict:
  """All fields of a dataclass.

  Args:
    kind: the dataclass; every field has a default.
    leave_out: fields that the run itself decides.
    **values: where the section differs from the defaults.

  Raises:
    ValueError: a value is for a field that is not there.
  """
  hints = typing.get_type_hints(kind)
  result = config_dict.ConfigDict()
  for field in dataclasses.fields(kind):
    if field.name in leave_out:
      continue
    value = values.pop(field.name, field.default)
    plain = [one for one in typing.get_args(hints[field.name]) if one in _PLAIN]
    if _allows_none(hints[field.name]):
      value = optional(plain[0], value)
    result[field.name] = value
  for name, value in values.items():
    raise ValueError(
      f'{name} must be a field of {kind.__name__} that the section has, got '
      f'{value!r}; remove it.'
    )
  return result


def read(kind: type, section: Mapping[str, Any], name: str, **more: Any) -> Any:
  """The dataclass that a section describes, fields that lack at their defaults.

  Args:
    kind: the dataclass.
    section: its fields.
    name: of the section, for messages.
    **more: fields that the section must not hold.

  Raises:
    ValueError: a field is unknown or has a value of another type, or the
      dataclass refuses it.
  """
  hints = typing.get_type_hints(kind)
  values = dict(section)
  for field, value in values.items():
    if field not in hints:
      raise ValueError(
        f'{name}.{field} must be a field of {kind.__name__}, got {value!r}; '
        'remove it.'
      )
    if field in more:
      raise ValueError(
        f'{name}.{field} must not be set, since other fields decide it, got '
        f'{value!r}; remove it.'
      )
    if isinstance(value, list):
      values[field] = value = tuple(value)
    if not _fits(value, hints[field]):
      raise ValueError(
        f'{name}.{field} must be {_in_words(hints[field])}, got {value!r}; '
        'correct it.'
      )
  with naming(name, kind):
    return kind(**values, **more)


@contextlib.contextmanager
def naming(name: str, kind: Any) -> Iterator[None]:
  """Has what a library says of its arguments said of the fields of a section.

  Args:
    name: of the section.
    kind: the dataclass that the section describes.

  Raises:
    ValueError: of the class of the one that was raised within.
  """
  try:
    yield
  except ValueError as error:
    fields = {field.name for field in dataclasses.fields(kind)}
    # Some name the section that their fields are in most often.
    found = re.match(r'(?:\w+\.)?(\w+)', str(error))
    if found is None or found[1] not in fields:
      raise
    field = str(error)[found.start(1) :]
    raise type(error)(f'{name}.{field}') from error


def _allows_none(hint: Any) -> bool:
  return type(None) in typing.get_args(hint)


def _fits(value: Any, hint: Any) -> bool:
  if isinstance(hint, types.UnionType):
    return any(_fits(value, one) for one in typing.get_args(hint))
  hint = typing.get_origin(hint) or hint
  if isinstance(value, bool):
    return hint is bool
  return isinstance(value, (int, float) if hint is float else hint)


def _in_words(hint: Any) -> str:
  words = {int: 'a whole number', float: 'a number', bool: 'True or False'}
  kinds = typing.get_args(hint) if _allows_none(hint) else (hint,)
  names = [
    words.get(one, getattr(one, '__name__', str(one)))
    for one in kinds
    if one is not type(None)
  ]
  return ' or '.join(names + ['None'] * _allows_none(hint))
