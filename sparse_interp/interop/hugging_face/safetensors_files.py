"""The safetensors files of a model: one, or several that an index lists."""

import logging
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from sparse_interp.interop.hugging_face.hf_config import (
  read_json,
  refusal,
  short,
)

_log = logging.getLogger(__name__)

WHOLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
_SHARD = re.compile(r'[\w-][\w.-]*\.safetensors')


def find(directory: str | os.PathLike) -> tuple[list[str], dict[str, str]]:
  """Which files hold the tensors of a model.

  Where there is one file, an index beside it is not used.

  Args:
    directory: of the model.

  Returns:
    Names of the files, and {tensor: its file} as the index has it; empty for
    one file.

  Raises:
    ValueError: if there are no such files, the index is damaged or names files
      elsewhere, or a file that it names is missing.
  """
  directory = pathlib.Path(directory)
  if (directory / WHOLE).is_file():
    return [WHOLE], {}
  index = directory / INDEX
  if not index.is_file():
    raise refusal(
      directory,
      f'hold {WHOLE} or {INDEX}',
      'neither',
      'save the model as safetensors',
    )
  places = read_index(directory)
  names = sorted(set(places.values()))
  for name in names:
    if not (directory / name).is_file():
      raise refusal(
        index,
        'name files that are beside it',
        f'{name}, which is missing',
        'copy that file, or the index that belongs to the files',
      )
  return names, places


def log_unused(directory: str | os.PathLike, names: Collection[str]) -> None:
  """Logs files of tensors, and an index, that are beside those of a model."""
  directory = pathlib.Path(directory)
  rest = sorted({p.name for p in directory.glob('*.safetensors')} - {*names})
  if WHOLE in names:
    rest = [p.name for p in directory.glob(INDEX)] + rest
  if rest:
    more = f' and {len(rest) - 3} more' * (len(rest) > 3)
    _log.warning(
      '%s: not used, being no part of the model: %s%s.',
      directory,
      ', '.join(rest[:3]),
      more,
    )


def read_index(directory: str | os.PathLike) -> dict[str, str]:
  """Reads {tensor: file in the same directory}.

  Raises:
    ValueError: if the index is damaged, or names files elsewhere.
  """
  path = pathlib.Path(directory) / INDEX
  files, again = read_json(path).get('weight_map'), 'copy the file again'
  if not isinstance(files, dict) or not files:
    raise refusal(path, 'have a weight_map', short(files), again)
  for name in files.values():
    if not isinstance(name, str) or not _SHARD.fullmatch(name):
      raise refusal(path, 'name files of its own directory', short(name), again)
  return files


def check_places(
  directory: str | os.PathLike,
  index: Mapping[str, str],
  found: Mapping[str, str],
) -> None:
  """Compares an index with where tensors are.

  Raises:
    ValueError: names the index and a tensor that is elsewhere.
  """
  if not index or index == found:
    return
  odd = min(set(index.items()) ^ set(found.items()))[0]
  raise refusal(
    pathlib.Path(directory) / INDEX,
    'say where each tensor is',
    f'{short(odd)} in {index.get(odd)}, found in {found.get(odd)}',
    'copy the files again',
  )


def aliases(file: Any) -> dict[str, str]:
  """{name: tensor of the same numbers} that a file's metadata states.

  Tensors that share their memory are written once by safetensors' `save_model`,
  which keeps the other names as metadata.

  Args:
    file: opened by `safetensors.safe_open`.
  """
  names = set(file.keys())
  stated = file.metadata() or {}
  return {n: t for n, t in stated.items() if t in names and n not in names}
