"""Kinds and ranges of the fields of a configuration, before any work."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

_MISSING: Any = object()


def value_of(config: config_dict.ConfigDict, name: str) -> Any:
  """The value of a field, by its dotted name.

  Raises:
    ValueError: there is none.
  """
  value: Any = config
  for part in name.split('.'):
    value = value.get(part, _MISSING) if hasattr(value, 'get') else _MISSING
  if value is _MISSING:
    raise ValueError(
      f'{name} must be in the configuration, got none; add it, as in those of '
      'experiments/.'
    )
  return value


def check_finite(config: config_dict.ConfigDict) -> None:
  """Refuses infinity and nan wherever they are in a configuration.

  Raises:
    ValueError: one is there; the message names the field.
  """
  for name, value in _leaves(config.to_dict(), ''):
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'{name} must be finite, got {value}; choose a number.')


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of all that is in nested dicts, lists and tuples."""
  if isinstance(tree, dict):
    for key, value in tree.items():
      yield from _leaves(value, f'{name}.{key}' if name else str(key))
  elif isinstance(tree, tuple | list):
    for i, value in enumerate(tree):
      yield from _leaves(value, f'{name}[{i}]')
  else:
    yield name, tree


def check_whole(
  config: config_dict.ConfigDict,
  least: Mapping[str, int],
  optional: Mapping[str, int] | None = None,
) -> None:
  """Refuses fields that are no whole numbers, or too small.

  Args:
    config: the configuration.
    least: {dotted name: smallest value}.
    optional: the same for fields that may be None.

  Raises:
    ValueError: one is; the message names it.
  """
  optional = optional or {}
  for name, smallest in {**least, **optional}.items():
    value = value_of(config, name)
    if name in optional and value is None:
      continue
    # Neither True nor 8.0.
    kind = 'a whole number' if type(value) is not int else None
    if kind or value < smallest:
      none = ', or None' if name in optional else ''
      raise ValueError(
        f'{name} must be {kind or f"at least {smallest}"}, got {value!r}; '
        f'choose e.g. {max(smallest, 8)}{none}.'
      )


def check_seed(config: config_dict.ConfigDict) -> None:
  """Refuses a seed that is none.

  Raises:
    ValueError: it is not a whole number in [0, 2**32).
  """
  seed = value_of(config, 'seed')
  if type(seed) is not int or not 0 <= seed < 2**32:
    raise ValueError(
      f'seed must be a whole number in [0, 2**32), got {seed!r}; choose e.g. 0.'
    )


def check_number(
  config: config_dict.ConfigDict,
  name: str,
  above: float | int | None = None,
  least: float | int | None = None,
  most: float | int | None = None,
) -> None:
  """Refuses a field that is no number, or outside of a range.

  Args:
    config: the configuration.
    name: dotted.
    above: what it must be above.
    least: smallest value.
    most: largest value.

  Raises:
    ValueError: it is; the message names it.
  """
  value = value_of(config, name)
  problem = number_problem(value, above, least, most)
  if problem:
    raise ValueError(f'{name} must be {problem}, got {value!r}; correct it.')


def number_problem(
  value: Any,
  above: float | int | None = None,
  least: float | int | None = None,
  most: float | int | None = None,
) -> str | None:
  """What a value must be and is not, in words; None for a good one."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return 'a number'
  if above is not None and not value > above:
    return f'above {above:g}'
  if least is not None and not value >= least:
    return f'at least {least:g}'
  if most is not None and not value <= most:
    return f'at most {most:g}'
  return None if math.isfinite(value) else 'finite'


def check_text(
  config: config_dict.ConfigDict, *names: str, optional: bool = False
) -> None:
  """Refuses fields that are no text.

  Raises:
    ValueError: one is not, or is None without being optional.
  """
  for name in names:
    value = value_of(config, name)
    if not (isinstance(value, str) or (optional and value is None)):
      raise ValueError(
        f'{name} must be text{" or None" * optional}, got {value!r}; '
        'correct it.'
      )
