"""Files that are whole or not there: written beside their place, then moved."""

import contextlib
import os
import pathlib
import re
import secrets
import socket
from collections.abc import Callable, Iterator

# Process numbers are the same in many containers, and host names in some.
_PART = re.compile(r'\.(?P<name>.+)\.[A-Za-z0-9_-]*-\d+-[0-9a-f]{16}\.part')

# Who hears of every file before it is written; see `watched_by`.
_watchers: list[Callable[[pathlib.Path], None]] = []


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields another name to write to; it becomes `path` if nothing is raised.

  Args:
    path: of the file. Its directory is made if missing; a file that stands
      there is replaced in one step, or left as it is.
  """
  path = pathlib.Path(path)
  for watcher in tuple(_watchers):
    watcher(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(part_name(path.name))
  try:
    yield part
    with part.open('rb') as file:
      os.fsync(file.fileno())
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def part_name(name: str) -> str:
  """A name for the parts of a file that no other process has or had."""
  host = re.sub(r'[^A-Za-z0-9_-]', '-', socket.gethostname())[:32]
  return f'.{name}.{host}-{os.getpid()}-{secrets.token_hex(8)}.part'


def whole_name(name: str) -> str | None:
  """The name of the file that a part is of; None for what is no part."""
  match = _PART.fullmatch(name)
  return match['name'] if match else None


@contextlib.contextmanager
def watched_by(watcher: Callable[[pathlib.Path], None]) -> Iterator[None]:
  """While open, calls `watcher` with the path of every file to be written.

  What it raises keeps the file from being written.
  """
  _watchers.append(watcher)
  try:
    yield
  finally:
    _watchers.remove(watcher)
