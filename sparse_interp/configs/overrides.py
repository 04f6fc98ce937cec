"""Fields set on the command line: --config.section.field=value."""

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import config_dict

from sparse_interp.configs import fields
from sparse_interp.configs.fields import Field

_BOOLEANS = {'true': True, '1': True, 'false': False, '0': False}


def apply(
  config: config_dict.ConfigDict,
  given: Iterable[tuple[str, str]],
  further: Callable[[], Mapping[str, Field]] = dict,
) -> None:
  """Sets fields from text.

  Args:
    config: changed in place.
    given: (dotted name, text) pairs.
    further: fields that may be set though the configuration leaves them out,
      asked only where one is.

  Raises:
    ValueError: there is no such field, or the text is no value of its type.
  """
  for path, text in given:
    known = fields.of_config(config)
    if path not in known:
      known = {**further(), **known}
    if path not in known:
      raise ValueError(_unknown(path, text, known))
    section, _, name = path.rpartition('.')
    value = parse(path, text, known[path])
    with config.unlocked(), config.ignore_type():
      (_section(config, section) if section else config)[name] = value


def _section(config: config_dict.ConfigDict, path: str) -> Any:
  for name in path.split('.'):
    config = config[name]
  return config


def parse(path: str, text: str, field: Field) -> Any:
  """The value of a field that a text stands for.

  Raises:
    ValueError: it stands for none.
  """
  if field.kind is str and not (field.optional and text == 'None'):
    return text
  if field.kind is bool and text.lower() in _BOOLEANS:
    return _BOOLEANS[text.lower()]
  try:
    value = ast.literal_eval(text.strip())
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    value = (field.kind is tuple and _words(text)) or text
  if field.kind is tuple and value is not None:
    value = tuple(value) if isinstance(value, tuple | list) else (value,)
  if field.kind is float and isinstance(value, int):
    value = value if isinstance(value, bool) else _float(value)
  # None is for the check of the whole to judge: it knows whether it may be.
  if value is not None and (wrong := fields.problem(value, field)):
    raise ValueError(
      f'{path} must be {wrong}, got {text!r}; give e.g. '
      f'--config.{path}={_shown(field.default)}.'
    )
  return value


def _words(text: str) -> tuple[str, ...]:
  """What is no Python may be words with commas between."""
  return tuple(fields.names_in(text.strip('()[]')))


def _float(value: int) -> float:
  try:
    return float(value)
  except OverflowError:
    return float('inf')


def _shown(value: Any) -> str:
  return f'"{value}"' if isinstance(value, tuple) else str(value)


def _unknown(path: str, text: str, known: Mapping[str, Field]) -> str:
  inside = next((p for p in known if p.startswith(f'{path}.')), None)
  if inside:
    return (
      f'--config.{path} must name a field, got a section; set one of its '
      f'fields, e.g. --config.{inside}={_shown(known[inside].default)}.'
    )
  section = path.rpartition('.')[0]
  beside = [
    name.rpartition('.')[2]
    for name in known
    if name.rpartition('.')[0] == section
  ]
  place = section or 'the configuration'
  has = f'{place} has {", ".join(beside)}' if beside else f'there is no {place}'
  close = fields.did_you_mean(path, known)
  remedy = (
    f'did you mean --config.{close}={text}?' if close else f'choose: {has}.'
  )
  return f'--config.{path} must name a field of the configuration; {remedy}'
