"""Files at gs://, s3://, https:// and whatever else fsspec opens, copied here.

Nothing is fetched that was not named.
"""

import os
import pathlib
import shutil
from collections.abc import Iterable

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sparse_interp.files import regular, whole_file

# What has to be installed for a kind of path: an extra of this package.
_EXTRAS = {
  'gs': 'gcs',
  'gcs': 'gcs',
  's3': 's3',
  's3a': 's3',
  'http': 'http',
  'https': 'http',
}


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path names a protocol, as in `s3://bucket/model`."""
  return '://' in os.fspath(path)


def copy(
  source: str,
  names: Iterable[str],
  directory: str | os.PathLike,
  field: str = 'source',
) -> list[str]:
  """Copies those of the named files that are in a remote directory.

  Args:
    source: of the directory, with its protocol.
    names: of files in it; what is missing there is left out.
    directory: receives whole files.
    field: of the configuration, for messages.

  Returns:
    Names of the files that were there.

  Raises:
    ValueError: the protocol is unknown, needs an extra that is not installed,
      or the store refuses.
  """
  protocol = source.partition('://')[0]
  try:
    system, root = fsspec.core.url_to_fs(source)
  except ImportError as error:
    extra = _EXTRAS.get(protocol)
    remedy = f"pip install 'sparse_interp[{extra}]'" if extra else 'its library'
    raise ValueError(
      f'{field} must be of a kind that is installed, got {source} without what '
      f'{protocol}:// needs ({_gist(error)}); install {remedy}.'
    ) from None
  except ValueError as error:
    raise ValueError(
      f'{field} must be a path of a kind that fsspec knows, got {source} '
      f'({_gist(error)}); correct its protocol.'
    ) from None
  found = []
  try:
    for name in names:
      path = f'{root.rstrip("/")}/{name}'
      if system.exists(path):
        _copy_file(system, path, pathlib.Path(directory) / name)
        found.append(name)
  except Exception as error:  # every store raises its own
    if isinstance(error, OSError) and error.filename:
      raise  # of this machine
    raise ValueError(
      f'{field} must be readable, got {source} ({_gist(error)}); correct the '
      'path, or your credentials there.'
    ) from error
  return found


def _copy_file(system, path, target):
  if isinstance(system, LocalFileSystem):
    regular.check(path)
  with whole_file.writing(target) as part:
    with system.open(path, 'rb') as stream, part.open('wb') as file:
      shutil.copyfileobj(stream, file, 1 << 24)


def _gist(error):
  return ' '.join(f'{type(error).__name__}: {error}'.split())[:120]
