"""Kinds and ranges of the fields of a configuration, before any work."""

import math
from collections.abc import Mapping
from typing import Any

_MISSING = object()


def value_of(config: Mapping[str, Any], name: str) -> Any:
  """The value of a field, by its dotted name.

  Raises:
    ValueError: there is none.
  """
  value = config
  for part in name.split('.'):
    value = value.get(part, _MISSING) if hasattr(value, 'get') else _MISSING
  if value is _MISSING:
    raise ValueError(
      f'{name} must be in the configuration, got none; add it, as in those of '
      'experiments/.'
    )
  return value


def check_finite(config: Mapping[str, Any], inside: str = '') -> None:
  """Refuses infinity and nan wherever they are in a configuration.

  Raises:
    ValueError: one is there; the message names the field.
  """
  items = config if isinstance(config, tuple | list) else None
  pairs = enumerate(items) if items is not None else config.items()
  for key, value in pairs:
    name = f'{inside}[{key}]' if items is not None else f'{inside}.{key}'
    name = name.removeprefix('.')
    if hasattr(value, 'items') or isinstance(value, tuple | list):
      check_finite(value, name)
    elif isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'{name} must be finite, got {value}; choose a number.')


def check_whole(
  config: Mapping[str, Any],
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
    if type(value) is not int or value < smallest:
      none = ' or None' if name in optional else ''
      raise ValueError(
        f'{name} must be at least {smallest}{none}, and a whole number, got '
        f'{value!r}; choose e.g. {max(smallest, 8)}.'
      )


def check_seed(config: Mapping[str, Any]) -> None:
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
  config: Mapping[str, Any],
  name: str,
  above: float | None = None,
  least: float | None = None,
  most: float | None = None,
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
  above: float | None = None,
  least: float | None = None,
  most: float | None = None,
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
  config: Mapping[str, Any], *names: str, optional: bool = False
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
