"""Which code and libraries a result was made by, and where they changed."""

import functools
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from sparse_interp.files import workdir

# What decides numbers: the same seed gives others under another version.
_LIBRARIES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
  'grain',
  'tokenizers',
  'numba',
  'llvmlite',
)


@functools.cache
def _current() -> tuple[tuple[str, str], ...]:
  found = [('code', workdir.code_version())]
  found.append(('python', platform.python_version()))
  for name in _LIBRARIES:
    try:
      found.append((name, importlib.metadata.version(name)))
    except importlib.metadata.PackageNotFoundError:
      continue
  return tuple(found)


def current() -> dict[str, str]:
  """{'code', 'python' or library: version} of this process."""
  return dict(_current())


def add(
  history: Sequence[Mapping[str, Any]],
  now: Mapping[str, str],
  **since: str | int,
) -> list[dict[str, Any]]:
  """A history of versions, longer by one entry where they are others.

  Args:
    history: entries in order, each with versions and what `since` was.
    now: versions that take over.
    since: where they do, e.g. phase='pretrain', from_step=120.

  Returns:
    A new list.
  """
  history = [dict(entry) for entry in history]
  if history and not difference(history, now):
    return history
  return [*history, {**since, 'versions': dict(now)}]


def difference(
  history: Sequence[Mapping[str, Any]], now: Mapping[str, str]
) -> str:
  """What is another version now; '' where nothing is.

  >>> before = [{'versions': {'jax': '0.10.1', 'numpy': '2.3'}}]
  >>> difference(before, {'jax': '0.10.2'})
  'jax 0.10.1 -> 0.10.2, numpy 2.3 -> none'
  """
  before = history[-1]['versions'] if history else now
  return ', '.join(
    f'{name} {before.get(name, "none")} -> {now.get(name, "none")}'
    for name in dict.fromkeys([*before, *now])
    if before.get(name) != now.get(name)
  )
