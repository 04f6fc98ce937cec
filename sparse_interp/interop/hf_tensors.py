"""Tensors of a Hugging Face directory, and a parameter tree made of them.

A model is one file, `model.safetensors`, or several that
`model.safetensors.index.json` lists. Nothing here knows what a model computes:
`gpt2` and `gpt_neox` say which tensors theirs has.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from sparse_interp.files import regular, whole_file
from sparse_interp.interop.hf_config import CONFIG, read_json, refusal, short

_WHOLE = 'model.safetensors'
_INDEX = 'model.safetensors.index.json'
_DTYPES = ('F32', 'F16', 'BF16')


@dataclasses.dataclass(frozen=True)
class Weight:
  """One tensor of a model, there and here.

  Attributes:
    name: in the file, without the prefix that some files have.
    path: keys of the parameter tree.
    shape: in the file.
    read: from the file's layout to ours.
    write: from ours to the file's.
  """

  name: str
  path: tuple[str, ...]
  shape: tuple[int, ...]
  read: Callable[[np.ndarray], np.ndarray] = np.asarray
  write: Callable[[np.ndarray], np.ndarray] = np.asarray


class Tensors:
  """Tensors of a model by name, read one at a time."""

  def __init__(self, directory: pathlib.Path, files: Mapping[str, Any]):
    """Takes {name of a tensor: open file that has it}."""
    self.directory, self._files = directory, dict(files)

  def strip(self, prefix: str) -> None:
    """Forgets a prefix of names, where they have it."""
    self._full = {n.removeprefix(prefix): n for n in self._files}
    if len(self._full) < len(self._files):
      raise refusal(
        self.directory,
        f'name tensors with or without {prefix!r}, not both',
        'one tensor under two names',
        'copy the files again',
      )

  def names(self) -> set[str]:
    """Names, without the prefix."""
    return set(self._full)

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor, which is not read."""
    full = self._full[name]
    return tuple(self._files[full].get_slice(full).get_shape())

  def check(self, name: str, shape: tuple[int, ...]) -> None:
    """Refuses a tensor of another shape or dtype, without reading it."""
    full = self._full[name]
    view = self._files[full].get_slice(full)
    found = tuple(view.get_shape()), view.get_dtype()
    if found[0] != shape or found[1] not in _DTYPES:
      raise refusal(
        self.directory,
        f'hold {name} of shape {shape} and dtype {" or ".join(_DTYPES)}',
        f'{found[0]} and {found[1]}',
        f'see that {CONFIG} belongs to the tensors, or copy them again',
      )

  def read(self, name: str) -> Float[np.ndarray, '...']:
    """One tensor, as float32."""
    full = self._full[name]
    array = self._files[full].get_tensor(full).astype(np.float32, copy=False)
    if not np.all(np.isfinite(array)):
      raise refusal(
        self.directory,
        f'hold finite numbers in {name}',
        'nan or inf',
        'copy the files again',
      )
    return array


@contextlib.contextmanager
def open_tensors(
  directory: str | os.PathLike, prefix: str
) -> Iterator[Tensors]:
  """Opens all tensor files of a directory.

  Args:
    directory: of the model.
    prefix: of names, in some files.

  Raises:
    ValueError: if files are missing, damaged, or not those of the index.
  """
  directory = pathlib.Path(directory)
  index = None
  names = [_WHOLE]
  if not (directory / _WHOLE).exists():
    if not (directory / _INDEX).exists():
      raise refusal(
        directory,
        f'hold {_WHOLE} or {_INDEX}',
        'neither',
        'save the model as safetensors',
      )
    index = _read_index(directory / _INDEX)
    names = sorted(set(index.values()))
  with contextlib.ExitStack() as stack:
    files, where = {}, {}
    for name in names:
      try:
        regular.check(directory / name)
        file = safetensors.safe_open(directory / name, framework='numpy')
        stack.enter_context(file)
      except (OSError, safetensors.SafetensorError) as error:
        raise refusal(
          directory / name, 'be safetensors', str(error), 'copy it again'
        ) from None
      for tensor in file.keys():
        if tensor in where:
          where[tensor] = 'several files'
        files[tensor], where[tensor] = file, where.get(tensor, name)
    if index is not None and index != where:
      odd = min(set(index.items()) ^ set(where.items()))[0]
      raise refusal(
        directory / _INDEX,
        'say where each tensor is',
        f'{short(odd)} in {index.get(odd)}, found in {where.get(odd)}',
        'copy the files again',
      )
    tensors = Tensors(directory, files)
    tensors.strip(prefix)
    yield tensors


def _read_index(path: pathlib.Path) -> dict[str, str]:
  """{tensor: file in the same directory}."""
  files = read_json(path).get('weight_map')
  again = 'copy the file again'
  if not isinstance(files, dict) or not files:
    raise refusal(path, 'have a weight_map', short(files), again)
  for name in files.values():
    if not isinstance(name, str) or not re.fullmatch(
      r'[\w-][\w.-]*\.safetensors', name
    ):
      raise refusal(path, 'name files of its own directory', short(name), again)
  return files


def read_params(
  tensors: Tensors,
  weights: Iterable[Weight],
  buffers: str,
  same: Mapping[str, str],
) -> dict[str, Any]:
  """The parameter tree, from exactly the tensors that it needs.

  Args:
    tensors: of the model.
    weights: of the parameter tree.
    buffers: pattern of names that may be there and are not looked at.
    same: {name that may be there: tensor that it has to be equal to}.

  Raises:
    ValueError: if a tensor is missing, unknown, or of another shape or dtype.
  """
  left = {n for n in tensors.names() if not re.fullmatch(buffers, n)}
  found = []
  for weight in weights:
    if weight.name not in left:
      raise refusal(
        tensors.directory,
        f'hold {weight.name}',
        'no such tensor',
        f'see that {CONFIG} belongs to the tensors, or copy them again',
      )
    tensors.check(weight.name, weight.shape)
    left.remove(weight.name)
    found.append(weight)
  for name in left & same.keys():
    _check_equal(tensors, name, same[name])
  left -= same.keys()
  if left:
    raise refusal(
      tensors.directory,
      'hold the tensors of its model alone',
      short(min(left)),
      'use the loader of that model',
    )
  params = {}
  for weight in found:
    branch = params
    for key in weight.path[:-1]:
      branch = branch.setdefault(key, {})
    array = weight.read(tensors.read(weight.name))
    branch[weight.path[-1]] = jnp.asarray(np.ascontiguousarray(array))
  return params


def _check_equal(tensors: Tensors, name: str, other: str) -> None:
  tensors.check(name, tensors.shape(other))
  if not np.array_equal(tensors.read(name), tensors.read(other)):
    raise refusal(
      tensors.directory,
      f'hold {name} equal to {other}, to which {CONFIG} ties it',
      'other numbers',
      'set tie_word_embeddings to false, if it is',
    )


def write(
  directory: str | os.PathLike,
  fields: Mapping[str, Any],
  params: Mapping[str, Any],
  weights: Iterable[Weight],
  prefix: Callable[[str], str],
) -> None:
  """Writes config.json and model.safetensors, float32, whole or not at all.

  Args:
    directory: is made if it is not there.
    fields: of config.json.
    params: the parameter tree.
    weights: of that tree.
    prefix: from the name of a weight to its name in the file.
  """
  arrays = {}
  for weight in weights:
    array = params
    for key in weight.path:
      array = array[key]
    array = weight.write(np.asarray(jax.device_get(array), np.float32))
    arrays[prefix(weight.name)] = np.ascontiguousarray(array)
  directory = pathlib.Path(directory)
  # The configuration, which makes a directory a model, takes its place last.
  with (
    whole_file.writing(directory / CONFIG) as config,
    whole_file.writing(directory / _WHOLE) as whole,
  ):
    safetensors.numpy.save_file(arrays, whole, {'format': 'pt'})
    config.write_text(json.dumps(fields, indent=2) + '\n')
    # safetensors writes files that nobody else may read.
    shutil.copymode(config, whole)
