"""Whether what the file of a verdict says can be.

Everything here raises ValueErrors whose message is the part of a sentence that
begins with 'must', after the name of the file.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# {field: what it is in JSON}.
_FIELDS = {
  'schema_version': int,
  'task': str,
  'found': bool,
  'numbers': dict,
  'holds_under': list,
  'nulls': dict,
  'provenance': dict,
}
_IN_WORDS: dict[type, str] = {
  int: 'an integer',
  str: 'text',
  bool: 'true or false',
  list: 'a list',
  dict: 'an object',
}


def check_document(document: Mapping[str, Any], fields: Sequence[str]) -> None:
  """Checks the JSON.

  Args:
    document: of a whole verdict.
    fields: of each of its numbers.

  Raises:
    ValueError: a field is missing, unknown, of another kind, or contradicts
      another.
  """
  _same_names('its fields', document, _FIELDS)
  for name, kind in _FIELDS.items():
    _is(kind, name, document[name])
  for name in document['holds_under']:
    _is(str, 'every entry of holds_under', name)
  for group in ('numbers', 'nulls'):
    for name, one in document[group].items():
      where = f'{group}.{name:.40}'
      _is(dict, where, one)
      _same_names(f'the fields of {where}', one, fields)
      _check_number(where, one)


def _check_number(where: str, one: Mapping[str, Any]) -> None:
  """An interval that is one, and a judgement that follows from it."""
  for name in ('value', 'low', 'high'):
    _is_finite(f'{where}.{name}', one[name])
  if one['low'] > one['high']:
    raise ValueError(
      f'must have {where}.low of at most its high {one["high"]:g}, got '
      f'{one["low"]:g}'
    )
  _is(str, f'{where}.formula', one['formula'])
  _is(bool, f'{where}.at_most', one['at_most'])
  bound, passed = one['bound'], None
  if bound is not None:
    _is_finite(f'{where}.bound', bound)
    at_most = one['at_most']
    passed = one['high'] <= bound if at_most else one['low'] >= bound
  if one['passed'] is not passed:
    raise ValueError(
      f'must have {where}.passed as its interval and bound say, '
      f'{passed}, got {one["passed"]!r:.40}'
    )


def _is(kind: type, where: str, value: Any) -> None:
  if type(value) is not kind:
    raise ValueError(
      f'must have {where} as {_IN_WORDS[kind]}, got {value!r:.40}'
    )


def _is_finite(where: str, value: Any) -> None:
  # Python compares integers of any size, and turns not all into floats.
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not -math.inf < value < math.inf or abs(value) > 1e300:
    raise ValueError(f'must have {where} as a finite number, got {value!r:.40}')


def _same_names(
  what: str, found: Mapping[str, Any], wanted: Mapping | Sequence[str]
) -> None:
  different = sorted(found.keys() ^ set(wanted))
  if different:
    raise ValueError(
      f'must have {what} and no others, differs in {different[0]!r:.40}'
    )
