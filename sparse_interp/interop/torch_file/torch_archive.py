"""The zip archive around a .pt file: where every member's bytes lie.

torch.save stores members without compression, so that they can be used where
they are. Nothing is read here but the directory of the archive.
"""

import struct
import zipfile
from typing import BinaryIO

from sparse_interp.interop.torch_file.torch_unpickler import RefusedError

_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_LOCAL_HEADER = struct.Struct('<4s5H3I2H')
_ENCRYPTED = 1


def find_members(file: BinaryIO, size: int) -> dict[str, tuple[int, int]]:
  """Where the members of an archive of torch.save are.

  Args:
    file: opened for reading bytes.
    size: number of its bytes.

  Returns:
    {name without the archive's own directory: (offset, bytes)}, all of which
    lie in the file and do not overlap.

  Raises:
    RefusedError: if it is no such archive, or a damaged or compressed one.
  """
  if file.read(len(_LEGACY)) == _LEGACY:
    raise RefusedError(
      'be in the zip format of torch.save, not the legacy format of torch '
      'before 1.6'
    )
  try:
    # OSError: offsets that point before the beginning.
    with zipfile.ZipFile(file) as archive:
      entries = archive.infolist()
  except (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    OverflowError,
    EOFError,
    OSError,
    struct.error,
    IndexError,
  ):
    raise RefusedError('be a whole zip archive of torch.save') from None
  places, root = {}, None
  for entry in entries:
    first, _, name = entry.filename.partition('/')
    root = first if root is None else root
    if not name or first != root:
      raise RefusedError('hold one directory, as archives of torch.save do')
    if name in places:
      raise RefusedError(f'have every member once, not {name!r:.100} twice')
    places[name] = _place(file, entry, size)
  _check_disjoint(places)
  if 'data.pkl' not in places or 'constants.pkl' in places:
    raise RefusedError('be an archive of torch.save, with a data.pkl')
  return places


def _place(file, entry, size):
  name = f'{entry.filename!r:.100}'
  if entry.flag_bits & _ENCRYPTED:
    raise RefusedError(f'have plain members, but {name} is encrypted')
  stored = entry.compress_type == zipfile.ZIP_STORED
  if not stored or entry.compress_size != entry.file_size:
    raise RefusedError(f'have members as they are, but {name} is compressed')
  if not 0 <= entry.header_offset <= size - _LOCAL_HEADER.size:
    raise RefusedError(f'hold all of {name}, which lies beyond its end')
  file.seek(entry.header_offset)
  header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
  if header[0] != b'PK\3\4':
    raise RefusedError(f'have a header for {name} where its directory says')
  start = entry.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
  if start + entry.file_size > size:
    raise RefusedError(
      f'hold the {entry.file_size:,} bytes that {name} declares, but it has '
      f'{size:,} bytes'
    )
  return start, entry.file_size


def _check_disjoint(places):
  end = 0
  for start, length in sorted(places.values()):
    if start < end:
      raise RefusedError('have members that do not overlap')
    end = start + length
