"""Input files that are files: no pipe, no device, nothing that never ends.

A path that somebody gives, or that a link in somebody's folder leads to, can
name a pipe that nobody writes to or a device that never ends. Reading either
would hang or fill the memory, so nothing is read before it is known to be a
file of a bearable size.
"""

import os
import stat
from io import BufferedReader

# What is larger than this is read in parts, or by libraries.
_MOST_BYTES = 2**32

# By what `stat.S_IFMT` says.
_KINDS = {
  stat.S_IFREG: 'a file',
  stat.S_IFIFO: 'a pipe',
  stat.S_IFCHR: 'a device',
  stat.S_IFBLK: 'a device',
  stat.S_IFSOCK: 'a socket',
  stat.S_IFDIR: 'a directory',
}


def check(path: str | os.PathLike) -> int:
  """Size of a file in bytes, for libraries that open it by its path.

  Raises:
    OSError: if there is none, or it may not be looked at.
    ValueError: if it is no regular file, nor a link to one.
  """
  return _size(path, os.stat(path))


def what_is(path: str | os.PathLike) -> str:
  """'a file', 'a pipe', 'a device', ...; links count as what they lead to.

  Raises:
    OSError: if there is none, or it may not be looked at.
  """
  return _what(os.stat(path))


def open_file(path: str | os.PathLike) -> BufferedReader:
  """Opens a file for reading bytes; see `check`."""
  check(path)  # opening alone can already do something to a device
  # Without waiting, should it have become a pipe since.
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  file = open(descriptor, 'rb')  # noqa: SIM115 (the caller closes it)
  try:
    _size(path, os.fstat(file.fileno()))
  except ValueError:
    file.close()
    raise
  return file


def read_bytes(path: str | os.PathLike, most: int = _MOST_BYTES) -> bytes:
  """All bytes of a file; see `check`.

  Args:
    path: of the file.
    most: bytes that it may have.

  Raises:
    OSError: if there is none, or it may not be read.
    ValueError: if it is no regular file, or a larger one.
  """
  with open_file(path) as file:
    size = os.fstat(file.fileno()).st_size
    # Some files of the kernel say 0 and have more, so what is read counts.
    content = b'' if size > most else file.read(most + 1)
  if max(size, len(content)) > most:
    raise ValueError(
      f'{os.fspath(path)} must have at most {most / 2**20:g} MiB, got '
      f'{max(size, len(content)):,} bytes or more; give the right file.'
    )
  return content


def _size(path, found):
  what = _what(found)
  if what != 'a file':
    raise ValueError(
      f'{os.fspath(path)} must be a file, got {what}; correct the path.'
    )
  return found.st_size


def _what(found):
  return _KINDS.get(stat.S_IFMT(found.st_mode), 'something else')
