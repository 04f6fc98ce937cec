"""The files that make a directory a model, besides its checkpoints.

model.json holds the fields of the architecture and is written last: under
`files` it names the others with their SHA-256, so that a file that changed, or
came from another workdir, is noticed where it is read. These others stay what
they are, since other people's tools read them: tokenizer.json a `tokenizers`
file, the sample of text an array of numpy.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from sparse_interp.files import sealed

MODEL = 'model.json'
TOKENIZER = 'tokenizer.json'
# Windows of training text that later stages average activations over.
SAMPLE = 'pretraining_sample.npy'

_FILES = 'files'
_REMEDY = (
  'restore it, or delete it and run again what made the model, which makes it '
  'anew'
)


def write(workdir: str | pathlib.Path, fields: Mapping[str, Any]) -> None:
  """Writes model.json for the files that are there.

  Args:
    workdir: of the model.
    fields: of the architecture, JSON values.
  """
  workdir = pathlib.Path(workdir)
  hashes = {
    name: _sha256(workdir / name)
    for name in (TOKENIZER, SAMPLE)
    if (workdir / name).exists()
  }
  sealed.write_json(workdir / MODEL, {**fields, _FILES: hashes})


def read(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Fields of the architecture.

  Raises:
    ValueError: there is no model.json, or it is damaged.
  """
  fields = _read(workdir)
  del fields[_FILES]
  return fields


def checked(workdir: str | pathlib.Path, name: str) -> pathlib.Path:
  """Path of the tokenizer or the sample, whose bytes are those of the model.

  Raises:
    ValueError: there is no such file, or it is not the one that the model was
      made with.
  """
  path = pathlib.Path(workdir) / name
  expected = _read(workdir)[_FILES].get(name)
  if expected is None or not path.exists():
    tokenizer = '' if expected else ', with a tokenizer'
    raise ValueError(
      f'workdir must hold {name}, got {workdir} without it; run again what '
      f'made the model{tokenizer}.'
    )
  found = _sha256(path)
  if found != expected:
    raise ValueError(
      f'{path} must be the one that the model was made with, got SHA-256 '
      f'{found[:12]} instead of {expected[:12]}; {_REMEDY}.'
    )
  return path


def lists(workdir: str | pathlib.Path, name: str) -> bool:
  """Whether model.json, which must be there, names a file."""
  return name in _read(workdir)[_FILES]


def vouches(workdir: str | pathlib.Path, name: str) -> bool:
  """Whether a file is there that model.json names; another is made anew."""
  workdir = pathlib.Path(workdir)
  there = (workdir / MODEL).exists() and (workdir / name).exists()
  return there and lists(workdir, name)


def is_whole(workdir: str | pathlib.Path) -> bool:
  """Whether model.json and all files that it names are there.

  Raises:
    ValueError: one of them is there and damaged.
  """
  workdir = pathlib.Path(workdir)
  if not (workdir / MODEL).exists():
    return False
  names = _read(workdir)[_FILES]
  there = [name for name in names if (workdir / name).exists()]
  for name in there:
    checked(workdir, name)
  return len(there) == len(names)


def _read(workdir: str | pathlib.Path) -> dict[str, Any]:
  path = pathlib.Path(workdir) / MODEL
  if not path.exists():
    raise ValueError(
      f'workdir must hold a pretrained model, got no {path}; run a pretrain '
      'configuration in this workdir first.'
    )
  fields = sealed.read_json(path, _REMEDY)
  if not isinstance(fields.get(_FILES), dict):
    raise ValueError(f'{path} must list files, got none; {_REMEDY}.')
  return fields


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
