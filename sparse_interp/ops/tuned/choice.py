"""Which variant of a kernel is known to be faster than plain jax on this card.

What was measured stands in a JSON beside this file, one for each card, which
`experiments/benchmarks/tune.py` makes. Nothing is known of other cards, or of
sizes that are far from all that were measured: there 'auto' is plain jax.
"""

import functools
import json
import math
import pathlib
import re
from typing import Any

import jax

# A variant must be faster than all that is plain by this much.
_MARGIN = 0.97

# Cards with the multiprocessors of another, whose measurements stand in where
# their own are missing, if a variant was ahead by that much.
_LIKE = {'nvidia_h100_80gb_hbm3': 'nvidia_h200'}
_BORROWED_MARGIN = 0.5

# By how much a number may differ from a measured one, up or down.
_NEAR = {'tokens': 8, 'rows': 8, 'block': 1}
_NEAR_OTHERWISE = 2

# Names of times that are not of a kernel of ours begin so.
PLAIN = 'plain'


def card() -> str:
  """The kind of jax's default device, as it stands in a file's name."""
  kind = getattr(jax.local_devices()[0], 'device_kind', '')
  return re.sub(r'[^a-z0-9]+', '_', str(kind).lower()).strip('_')


@functools.lru_cache
def measured(name: str) -> list[dict[str, Any]]:
  """The cases that were measured on a card; none if the card is not known."""
  path = pathlib.Path(__file__).with_name(f'{name}.json')
  if not name or not path.exists():
    return []
  return json.loads(path.read_text())['cases']


def best(operation: str, **size: Any) -> str | None:
  """The variant known to be fastest on this card.

  Args:
    operation: as it stands in the file.
    **size: words, which must be the same, and numbers, which must be near those
      that were measured.

  Returns:
    Its name; None if plain jax is faster or nothing near was measured.
  """
  name = card()
  for source, margin in ((name, _MARGIN), (_LIKE.get(name), _BORROWED_MARGIN)):
    milliseconds = _nearest(measured(source or ''), operation, size)
    if milliseconds is not None:
      return winner(milliseconds, margin)
  return None


def _nearest(cases, operation, size) -> dict[str, float] | None:
  """The times of the case that is nearest; None if none is near."""
  found = []
  for case in cases:
    if case['operation'] == operation and case['size'].keys() == size.keys():
      distance = _distance(case['size'], size)
      if distance is not None:
        found.append((distance, case['milliseconds']))
  return min(found, key=lambda pair: pair[0])[1] if found else None


def winner(
  milliseconds: dict[str, float], margin: float = _MARGIN
) -> str | None:
  """The fastest variant if it is faster than all that is plain.

  Args:
    milliseconds: by name; of plain jax at least once.
    margin: share of the time of what is plain that it may take at most.
  """
  plain = [t for name, t in milliseconds.items() if name.startswith(PLAIN)]
  ours = {
    t: name for name, t in milliseconds.items() if not name.startswith(PLAIN)
  }
  if not plain or not ours or min(ours) > margin * min(plain):
    return None
  return ours[min(ours)]


def _distance(known: dict[str, Any], wanted: dict[str, Any]) -> float | None:
  """How far sizes are from each other; None if too far."""
  total = 0.0
  for name, value in wanted.items():
    if isinstance(value, str):
      if known[name] != value:
        return None
      continue
    apart = abs(math.log(max(value, 1e-9) / known[name]))
    if apart > math.log(_NEAR.get(name, _NEAR_OTHERWISE)) + 1e-9:
      return None
    total += apart
  return total
