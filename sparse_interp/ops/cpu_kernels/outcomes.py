"""What came out when a kernel was tried, kept from process to process.

The first outcome that is written for a kernel stays, whoever else tries it at
the same time: all processes of a machine compute alike. Another source,
compiler, machine, version of jax or setting of XLA is another file; it lies
beside the machine code, and is taken away with what was not used for a month.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import threading
from typing import NamedTuple

_KINDS = ('passed', 'differs', 'slower')


class Outcome(NamedTuple):
  """Of trying a kernel.

  Attributes:
    kind: 'passed', 'differs', 'slower', or 'failed', which is not kept.
    detail: what to say of it; nothing if it passed.
  """

  kind: str
  detail: str


def directory() -> pathlib.Path:
  """Where machine code and outcomes are kept."""
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(home).expanduser() / 'sparse_interp'


def path(name: str, key: str) -> pathlib.Path:
  """Where the outcome of the kernel with that name and key is kept."""
  versions = [importlib.metadata.version(part) for part in ('jax', 'jaxlib')]
  own = (key, versions, os.environ.get('XLA_FLAGS'))
  digest = hashlib.sha256(repr(own).encode()).hexdigest()[:32]
  return directory() / f'{name}-{digest}.json'


def read(path: pathlib.Path) -> Outcome | None:
  """What was kept; None if nothing was, or it cannot be read."""
  try:
    kept = json.loads(path.read_bytes())
    outcome = Outcome(str(kept['kind']), str(kept['detail']))
  except (OSError, ValueError, TypeError, KeyError):
    return None
  with contextlib.suppress(OSError):
    os.utime(path)  # in use
  return outcome if outcome.kind in _KINDS else None


def can_keep(path: pathlib.Path) -> bool:
  """Whether an outcome can be written there."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError:
    return False
  return os.access(path.parent, os.W_OK)


def keep(path: pathlib.Path, outcome: Outcome) -> Outcome | None:
  """Writes an outcome if there is none yet; returns the one that is there.

  None where nothing can be written.
  """
  content = json.dumps(outcome._asdict())
  writer = f'{os.getpid()}-{threading.get_ident()}'
  part = path.with_name(f'{path.name}.{writer}')
  try:
    part.write_text(content)
    try:
      os.link(part, path)  # whole, or not at all if another was first
    except OSError:
      if read(path) is None:  # damaged, or no links are to be had
        part.replace(path)
  except OSError:
    pass
  finally:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
  return read(path)
