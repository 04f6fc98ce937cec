"""The tensors of a released checkpoint, in torch's format or safetensors."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors

from sparse_interp.files import regular
from sparse_interp.interop.hugging_face import safetensors_files, tensor_names
from sparse_interp.interop.torch_file import torch_file

TORCH, HEAD = 'final_model.pt', 'lm_head.weight'
_BODY = 'transformer.'
_OUTSIDE = (HEAD, 'bigram_table', 'final_logits_bias')


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that has not been read yet."""

  shape: tuple[int, ...]
  dtype: str
  get: Callable[[], np.ndarray]


def open_tensors(
  directory: pathlib.Path,
) -> tuple[pathlib.Path, dict[str, Tensor], int]:
  """Finds the tensors of a model; reads none.

  Args:
    directory: of the model.

  Returns:
    Their file (the directory where they are in several), {name in the published
    code: tensor}, and how many bytes there are.

  Raises:
    OSError: if there is no file of tensors, or it cannot be read.
    ValueError: if it is damaged, or holds a tensor under two names.
  """
  path, tensors, size = _open(directory)
  names = tensor_names.bare(path, tensors, _BODY, _OUTSIDE)
  named = {
    bare if bare in _OUTSIDE else _BODY + bare: tensors[name]
    for bare, name in names.items()
  }
  return path, named, size


def _open(directory):
  path = directory / TORCH
  if not path.exists() and any(
    (directory / name).exists()
    for name in (safetensors_files.WHOLE, safetensors_files.INDEX)
  ):
    return _open_safetensors(directory)
  state = torch_file.read(path)
  if not isinstance(state, dict):
    raise wrong(path, 'hold a dict of tensors', f'a {type(state).__name__}')
  tensors = {}
  for name, array in state.items():
    if not isinstance(name, str) or not isinstance(array, np.ndarray):
      raise wrong(path, 'hold tensors by name only', f'{name!r:.100}')
    get = functools.partial(np.asarray, array)
    tensors[name] = Tensor(array.shape, str(array.dtype), get)
  return path, tensors, path.stat().st_size


def _open_safetensors(directory):
  names, index = safetensors_files.find(directory)
  safetensors_files.log_unused(directory, names)
  tensors, where, size = {}, {}, 0
  for name in names:
    path = directory / name
    size += regular.check(path)
    try:
      with safetensors.safe_open(path, framework='numpy') as file:
        found = {
          n: Tensor(*_kind(file, n), _getter(path, n))
          for n in file.keys()  # noqa: SIM118 (no dict)
        }
        other = safetensors_files.aliases(file)
    except safetensors.SafetensorError as error:
      detail = ' '.join(str(error).split())[:100]
      raise wrong(path, 'be a whole safetensors file', detail) from None
    where |= {n: 'several files' if n in where else name for n in found}
    tensors |= found | {alias: found[n] for alias, n in other.items()}
  stored = {n: f for n, f in index.items() if n in where or n not in tensors}
  safetensors_files.check_places(directory, stored, where)
  path = directory / names[0] if len(names) == 1 else directory
  return path, tensors, size


def _kind(file, name):
  dtypes = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
  part = file.get_slice(name)
  return tuple(part.get_shape()), dtypes.get(kind := part.get_dtype(), kind)


def _getter(path, name):
  def get():
    # A file that stays open keeps all that was read in memory.
    with safetensors.safe_open(path, framework='numpy') as file:
      return file.get_tensor(name)

  return get


def wrong(path: pathlib.Path, constraint: str, found: Any) -> ValueError:
  """The one line that refuses a file of tensors."""
  return ValueError(
    f'released model {path} must {constraint}, got {found}; get the file '
    'again, or correct the configuration beside it.'
  )
