"""One run at a time in a directory.

The lock is the kernel's, on a file in the directory: it ends with the process
that holds it, however that ends. The file says who it is.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator

NAME = '.sparse_interp.lock'

# How often to begin anew because a run that ended took its file away.
_ATTEMPTS = 20


@contextlib.contextmanager
def held(directory: str | os.PathLike) -> Iterator[bool]:
  """Holds the lock of a directory; nobody waits for it.

  Args:
    directory: which must exist; it holds a file more in the meantime.

  Yields:
    Whether it is locked; some file systems have no locks.

  Raises:
    ValueError: somebody else holds it; the message says who.
    OSError: the file cannot be made.
  """
  path = pathlib.Path(directory) / NAME
  file, locked = _take(path)
  try:
    os.ftruncate(file, 0)
    os.pwrite(file, _me().encode(), 0)
    yield locked
  finally:
    # Before the lock ends: nobody else may hold it while the file goes.
    path.unlink(missing_ok=True)
    os.close(file)


def is_there(directory: str | os.PathLike) -> bool:
  """Whether there is a lock, which somebody holds or was killed with."""
  return (pathlib.Path(directory) / NAME).exists()


def _take(path: pathlib.Path) -> tuple[int, bool]:
  """(descriptor of the file, whether it is locked)."""
  for _ in range(_ATTEMPTS):
    # Not through a link that somebody put there.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
      file = os.open(path, flags, 0o644)
    except FileNotFoundError:  # a run that ended took the directory back
      path.parent.mkdir(parents=True, exist_ok=True)
      continue
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      who = _who(file)
      os.close(file)
      raise ValueError(
        f'workdir must not be in use, got {path.parent}, which {who} is '
        'writing to; wait for its end, end it, or choose another workdir.'
      ) from None
    except OSError:  # no locks here; a run is worth more than none
      return file, False
    try:
      if os.path.samestat(os.fstat(file), path.stat()):
        return file, True
    except FileNotFoundError:
      pass
    os.close(file)
  raise ValueError(
    f'workdir must not be in use, got {path.parent}, where runs begin and end '
    'all the time; choose another workdir.'
  )


def _me() -> str:
  now = datetime.datetime.now().astimezone()
  return json.dumps(
    {
      'process': os.getpid(),
      'host': socket.gethostname(),
      'since': now.isoformat(' ', 'seconds'),
      'command': shlex.join(sys.orig_argv),
    }
  )


def _who(file: int) -> str:
  """Who holds the lock, in words."""
  try:
    found = json.loads(os.pread(file, 100_000, 0))
    return (
      f'process {int(found["process"])} on {found["host"]!s:.64} since '
      f'{found["since"]!s:.32} ({" ".join(found["command"].split())[:200]})'
    )
  except (ValueError, KeyError, TypeError, AttributeError):
    return 'another process'  # which holds it since a moment ago
