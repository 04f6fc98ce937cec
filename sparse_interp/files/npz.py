"""Archives of arrays (.npz), of which nothing is believed before it is checked.

The header of an array can ask for any amount of memory, and a small archive can
inflate to a large one. So sizes are compared with each other and with a limit
before any array is made.
"""

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from sparse_interp.files import regular

MOST_BYTES = 2 * 2**30
# By which deflate, the only method of numpy, can shrink anything.
_MOST_SHRUNK = 1032
_ENCRYPTED = 1
_PLAIN = 'biufcUS'


class Header(NamedTuple):
  """What an array is, before it is read."""

  shape: tuple[int, ...]
  dtype: np.dtype


class Archive:
  """An open archive.

  Attributes:
    headers: {name: shape and dtype}, which are what the members have room for.
      What is no array in an archive is not looked at.
  """

  def __init__(
    self, file: BinaryIO, path: str | os.PathLike, remedy: str, most: int
  ):
    self._path, self._remedy = path, remedy
    self._members: dict[str, zipfile.ZipInfo] = {}
    try:
      self._archive = zipfile.ZipFile(file)
    except Exception as error:  # noqa: BLE001 (zipfile has many)
      raise self._wrong(_gist(error)) from None
    for member in self._archive.infolist():
      name = member.filename.removesuffix('.npy')
      if name == member.filename:
        continue
      if name in self._members:
        raise self._wrong(f'{_short(name)} twice')
      self._check(member)
      self._members[name] = member
    total = sum(member.file_size for member in self._members.values())
    if total > most:
      raise self._wrong(f'{total:,} bytes of arrays, more than {most:,}')
    self.headers: dict[str, Header] = {
      name: self._header(name) for name in self._members
    }

  def read(self, name: str) -> np.ndarray:
    """An array.

    Raises:
      ValueError: it is damaged.
    """
    try:
      with self._archive.open(self._members[name]) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the checksum is compared at the end
        return array
    except Exception as error:  # noqa: BLE001 (zlib and numpy too)
      raise self._wrong(f'{_short(name)} damaged: {_gist(error)}') from None

  def _check(self, member):
    name = _short(member.filename)
    stored = member.compress_type == zipfile.ZIP_STORED
    if member.flag_bits & _ENCRYPTED or not (
      stored or member.compress_type == zipfile.ZIP_DEFLATED
    ):
      raise self._wrong(f'{name} encrypted, or compressed in another way')
    shrunk = 1 if stored else _MOST_SHRUNK
    if member.file_size > shrunk * member.compress_size:
      raise self._wrong(
        f'{name} of {member.file_size:,} bytes in {member.compress_size:,}'
      )

  def _header(self, name):
    member = self._members[name]
    try:
      with self._archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
          found = np.lib.format.read_array_header_1_0(file)
        else:
          found = np.lib.format.read_array_header_2_0(file)
        begin = file.tell()
    # numpy evaluates it, which can fail in any way
    except Exception as error:  # noqa: BLE001
      raise self._wrong(f'{_short(name)} damaged: {_gist(error)}') from None
    shape, _, dtype = found
    if dtype.kind not in _PLAIN or dtype.fields or dtype.subdtype:
      raise self._wrong(f'{_short(name)} of dtype {_short(str(dtype))}')
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or begin + size != member.file_size:
      raise self._wrong(
        f'{_short(name)} of shape {_short(str(shape))} and dtype {dtype}, in '
        f'{member.file_size - begin:,} bytes'
      )
    return Header(shape, dtype)

  def _wrong(self, found):
    return ValueError(
      f'{os.fspath(self._path)} must be a whole npz archive of plain arrays, '
      f'got {found}; {self._remedy}.'
    )


@contextlib.contextmanager
def opened(
  path: str | os.PathLike, remedy: str, most: int = MOST_BYTES
) -> Iterator[Archive]:
  """Opens an archive of plain arrays: numbers, booleans and texts.

  Args:
    path: of the file.
    remedy: what to do if it is damaged, e.g. 'prune again'.
    most: bytes of all its arrays together.

  Raises:
    OSError: if there is none, or it may not be read.
    ValueError: if it is something else, damaged, or larger.
  """
  with regular.open_file(path) as file:
    yield Archive(file, path, remedy, most)


def read(
  path: str | os.PathLike, remedy: str, most: int = MOST_BYTES
) -> dict[str, np.ndarray]:
  """All arrays of an archive; see `opened`.

  >>> import pathlib, tempfile
  >>> with tempfile.TemporaryDirectory() as directory:
  ...   path = pathlib.Path(directory) / 'a.npz'
  ...   np.savez(path, mean=np.arange(3))
  ...   read(path, 'prune again')
  {'mean': array([0, 1, 2])}
  """
  with opened(path, remedy, most) as archive:
    return {name: archive.read(name) for name in archive.headers}


def _gist(error):
  return _short(str(error) or type(error).__name__)


def _short(text):
  text = ' '.join(text.split())
  return text if len(text) <= 80 else f'{text[:77]}...'
