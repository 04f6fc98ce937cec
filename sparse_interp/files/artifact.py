"""Artifacts: sealed JSON, for most with arrays in an npz beside it.

The JSON holds the SHA-256 of the archive under `npz_sha256`, so that the arrays
of another artifact are not taken for those of this one. What is in them is for
the reader of each format to check.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse_interp.files import npz, regular, sealed, whole_file

_NPZ_HASH = 'npz_sha256'


@dataclasses.dataclass(frozen=True)
class Format:
  """What the files of a kind of artifact are called.

  Attributes:
    kind: what messages call the artifact, e.g. 'circuit'.
    json: name of the description, which makes a directory such an artifact.
    npz: name of the archive; empty where there is none.
    schema_version: that is written, and the only one that is read.
    remedy: what to do if a file is damaged, e.g. 'prune again'.
    by_hand: whether the hashes may be missing: somebody may write one by hand.
  """

  kind: str
  json: str
  npz: str
  schema_version: int
  remedy: str
  by_hand: bool = False

  def wrong(self, path: str | os.PathLike, what: str) -> ValueError:
    """The error that says what a file must be and is not."""
    return ValueError(
      f'{self.kind} file {os.fspath(path)} {what}; {self.remedy}.'
    )


def write_document(
  form: Format, path: str | os.PathLike, document: Mapping[str, Any]
) -> None:
  """Writes an artifact that has no arrays, in one step.

  Args:
    form: of the artifact.
    path: of the file.
    document: JSON values, schema_version among them.

  Raises:
    ValueError: a number of the document is not finite.
    OSError: the disk is full or may not be written to; a file that stood there
      before is then untouched.
  """
  with whole_file.writing(path) as part:
    _dump(sealed.seal(document), part)


def write(
  form: Format,
  directory: str | os.PathLike,
  document: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
) -> None:
  """Writes an artifact; at no moment is there a half-written one.

  Both files are written under other names first. While they are exchanged, the
  description does not exist. The same content gives the same bytes.

  Args:
    form: of the artifact.
    directory: made if missing.
    document: JSON values.
    arrays: by name.

  Raises:
    ValueError: a number of the document is not finite.
    OSError: the disk is full or may not be written to; an artifact that stood
      there before is then untouched.
  """
  directory = pathlib.Path(directory)
  # What is left last, the description, appears last.
  with (
    whole_file.writing(directory / form.json) as description,
    whole_file.writing(directory / form.npz) as archive,
  ):
    with archive.open('wb') as file:
      np.savez_compressed(file, **arrays)
      _flush(file)
    document = sealed.seal({**document, _NPZ_HASH: _sha256(archive)})
    _dump(document, description)
    (directory / form.json).unlink(missing_ok=True)


def read(
  form: Format, directory: str | os.PathLike
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads (document, arrays) as they were written.

  Raises:
    ValueError: a file is missing, damaged, of an unknown version, or they do
      not belong together; the message names the file and what to do.
  """
  path = pathlib.Path(directory) / form.json
  document = read_document(form, path)
  archive = path.with_name(form.npz)
  if not archive.exists():
    raise form.wrong(archive, 'must exist, got no file')
  expected = document.pop(_NPZ_HASH, None)
  missing = expected is None and form.by_hand
  if not missing and expected != _sha256(archive):
    raise form.wrong(
      archive,
      f'must be the one that {form.json} was written with, got a damaged file '
      f'or that of another {form.kind}',
    )
  return document, npz.read(archive, form.remedy)


def read_document(form: Format, path: str | os.PathLike) -> dict[str, Any]:
  """Reads the JSON of an artifact as it was written, without its seal.

  Raises:
    ValueError: it is missing, damaged or of an unknown version; the message
      names the file and what to do.
  """
  try:
    content = regular.read_bytes(path)
    document = sealed.unseal(content, optional=form.by_hand)
  except FileNotFoundError:
    raise form.wrong(path, 'must exist, got no file') from None
  except ValueError as error:
    raise form.wrong(
      path, f'must be whole JSON as written, got {error}'
    ) from None
  version = document.get('schema_version')
  if version != form.schema_version:
    raise ValueError(
      f'{os.fspath(path)}: schema_version must be {form.schema_version}, got '
      f'{repr(version)[:40]}; {form.remedy.split(",")[0]}, or read it with the '
      'version that wrote it.'
    )
  return document


def _sha256(path: pathlib.Path) -> str:
  with regular.open_file(path) as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _dump(document: Mapping[str, Any], path: pathlib.Path) -> None:
  with path.open('w', encoding='utf-8') as file:
    json.dump(document, file, indent=1, allow_nan=False)
    _flush(file)


def _flush(file: Any) -> None:
  file.flush()
  os.fsync(file.fileno())
