"""The two files of a circuit: circuit.json, which is sealed, and circuit.npz.

circuit.json holds the SHA-256 of circuit.npz under `npz_sha256`, so that the
arrays of another circuit are not taken for those of this one. A circuit that
somebody made by hand may do without either hash; what it says is checked all
the same by `circuits.circuit_check`.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse_interp.files import npz, regular, sealed, whole_file

SCHEMA_VERSION = 1
JSON, NPZ = 'circuit.json', 'circuit.npz'
REMEDY = 'prune again, or restore it'

_NPZ_HASH = 'npz_sha256'


def write(
  directory: str | os.PathLike,
  document: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
) -> None:
  """Writes a circuit; at no moment is there a half-written one.

  Both files are written under other names first. While they are exchanged,
  circuit.json, which makes a directory a circuit, does not exist.

  Args:
    directory: made if missing.
    document: JSON values.
    arrays: by name.

  Raises:
    ValueError: a number of the document is not finite.
    OSError: the disk is full or may not be written to; a circuit that stood
      there before is then untouched.
  """
  directory = pathlib.Path(directory)
  # What is left last, the description, appears last.
  with (
    whole_file.writing(directory / JSON) as description,
    whole_file.writing(directory / NPZ) as archive,
  ):
    with archive.open('wb') as file:
      np.savez_compressed(file, **arrays)
      _flush(file)
    document = sealed.seal({**document, _NPZ_HASH: _sha256(archive)})
    with description.open('w', encoding='utf-8') as file:
      json.dump(document, file, indent=1, allow_nan=False)
      _flush(file)
    (directory / JSON).unlink(missing_ok=True)


def read(
  directory: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads (document, arrays) as they were written.

  Raises:
    ValueError: a file is missing, damaged, of an unknown version, or they do
      not belong together; the message names the file and what to do.
  """
  path = pathlib.Path(directory) / JSON
  try:
    document = sealed.unseal(regular.read_bytes(path), optional=True)
  except FileNotFoundError:
    raise wrong(path, 'must exist, got no file') from None
  except ValueError as error:
    raise wrong(path, f'must be whole JSON as written, got {error}') from None
  version = document.get('schema_version')
  if version != SCHEMA_VERSION:
    raise ValueError(
      f'{path}: schema_version must be {SCHEMA_VERSION}, got '
      f'{repr(version)[:40]}; prune again, or read it with the version that '
      'wrote it.'
    )
  archive = path.with_name(NPZ)
  if not archive.exists():
    raise wrong(archive, 'must exist, got no file')
  expected = document.pop(_NPZ_HASH, None)
  if expected not in (None, _sha256(archive)):
    raise wrong(
      archive,
      f'must be the one that {JSON} was written with, got a damaged file or '
      'that of another circuit',
    )
  return document, npz.read(archive, REMEDY)


def wrong(path: str | os.PathLike, what: str) -> ValueError:
  """The error that says what a file of a circuit must be and is not."""
  return ValueError(f'circuit file {os.fspath(path)} {what}; {REMEDY}.')


def _sha256(path: pathlib.Path) -> str:
  with regular.open_file(path) as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _flush(file: Any) -> None:
  file.flush()
  os.fsync(file.fileno())
