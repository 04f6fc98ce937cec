"""A directory with somebody's model: which kind it is, and the model in it."""

import hashlib
import os
import pathlib
from typing import Any

from sparse_interp.files import json_text
from sparse_interp.interop import own_tokenizer
from sparse_interp.interop.hugging_face import gpt2, gpt_neox, safetensors_files
from sparse_interp.interop.openai import openai_release
from sparse_interp.models import GPTConfig

# Files that hold weights, and those that say what they are the weights of.
WEIGHTS = ('final_model.pt', 'model.safetensors')
_RELEASED, _HUB = 'beeg_config.json', 'config.json'
_INDEX = safetensors_files.INDEX
FILES = (_RELEASED, _HUB, *WEIGHTS, _INDEX, *own_tokenizer.FILES)

_HUB_KINDS = {'gpt2': gpt2.load, 'gpt_neox': gpt_neox.load}
# Only released configurations have it; on the hub they are in config.json.
_RELEASED_FIELD = 'residual_activation_type'


def load(directory: str | os.PathLike) -> tuple[str, GPTConfig, dict[str, Any]]:
  """Reads a model of any kind that is known.

  Args:
    directory: on this machine.

  Returns:
    Its kind ('released', 'gpt2' or 'gpt_neox'), architecture and parameters.

  Raises:
    ValueError: it is of no such kind, or damaged.
  """
  directory = pathlib.Path(directory)
  kind = _kind(directory)
  reader = openai_release.load if kind == 'released' else _HUB_KINDS[kind]
  return kind, *reader(directory)


def shards(directory: str | os.PathLike) -> list[str]:
  """Names of the files that an index lists, where weights are in several.

  They may be missing.

  Raises:
    ValueError: the index is damaged, or names files elsewhere.
  """
  directory = pathlib.Path(directory)
  if any((directory / name).is_file() for name in WEIGHTS):
    return []
  if not (directory / _INDEX).is_file():
    return []
  return sorted(set(safetensors_files.read_index(directory).values()))


def sha256(directory: str | os.PathLike) -> str:
  """Of the file with the weights; of the digests of its parts where several.

  Raises:
    ValueError: there is none, or an index names files that are missing.
  """
  directory = pathlib.Path(directory)
  for name in WEIGHTS:
    if (directory / name).is_file():
      return _digest(directory / name)
  if not (directory / _INDEX).is_file():
    raise _unknown(directory, f'no {" or ".join(WEIGHTS)}')
  names, _ = safetensors_files.find(directory)
  digests = ''.join(_digest(directory / name) for name in names)
  return hashlib.sha256(digests.encode()).hexdigest()


def _digest(path):
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _kind(directory: pathlib.Path) -> str:
  if (directory / _RELEASED).is_file():
    return 'released'
  path = directory / _HUB
  if not path.is_file():
    raise _unknown(directory, f'neither {_RELEASED} nor {_HUB}')
  try:
    fields = json_text.read(path, 'copy it again', finite=False)
  except ValueError:
    raise _unknown(directory, f'a damaged {_HUB}') from None
  if not isinstance(fields, dict):
    raise _unknown(directory, f'a {_HUB} that is no object')
  if _RELEASED_FIELD in fields:
    return 'released'
  kind = fields.get('model_type')
  if not isinstance(kind, str) or kind not in _HUB_KINDS:
    raise _unknown(directory, f'model_type {str(kind)[:40]!r}')
  return kind


def _unknown(directory, found):
  return ValueError(
    f'source must hold {_RELEASED} with final_model.pt (released circuit '
    f'models), or {_HUB} of model_type {" or ".join(_HUB_KINDS)} with '
    f'model.safetensors, got {found} in {directory}; correct the path.'
  )
