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
from sparse_interp.interop.hugging_face import safetensors_files, tensor_names
from sparse_interp.interop.hugging_face.hf_config import CONFIG, refusal, short

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
  """Tensors of a model by their bare names, read one at a time."""

  def __init__(
    self,
    directory: pathlib.Path,
    files: Mapping[str, tuple[Any, str]],
    full: Mapping[str, str],
  ):
    """Takes {stored name: (open file, name there)} and {bare: stored name}."""
    self.directory, self._files, self._full = directory, files, dict(full)

  def rename(self, old: str, new: str) -> None:
    """Calls a tensor by another name from now on."""
    self._full[new] = self._full.pop(old)

  def names(self) -> set[str]:
    """Bare names."""
    return set(self._full)

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor, which is not read."""
    return tuple(self._view(name).get_shape())

  def check(self, name: str, shape: tuple[int, ...]) -> None:
    """Refuses a tensor of another shape or dtype, without reading it."""
    view = self._view(name)
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
    file, there = self._files[self._full[name]]
    array = file.get_tensor(there).astype(np.float32, copy=False)
    if not np.all(np.isfinite(array)):
      raise refusal(
        self.directory,
        f'hold finite numbers in {name}',
        'nan or inf',
        'copy the files again',
      )
    return array

  def _view(self, name):
    file, there = self._files[self._full[name]]
    return file.get_slice(there)


@contextlib.contextmanager
def open_tensors(
  directory: str | os.PathLike, body: str, unembed: str
) -> Iterator[Tensors]:
  """Opens all tensor files of a directory.

  Args:
    directory: of the model.
    body: what names in the body of the model begin with, in some files.
    unembed: name of the unembedding, which is outside.

  Raises:
    ValueError: if files are missing, damaged, not those of the index, or have
      one tensor under two names.
  """
  directory = pathlib.Path(directory)
  names, index = safetensors_files.find(directory)
  safetensors_files.log_unused(directory, names)
  with contextlib.ExitStack() as stack:
    files, where, other = {}, {}, {}
    for name in names:
      try:
        regular.check(directory / name)
        file = safetensors.safe_open(directory / name, framework='numpy')
        stack.enter_context(file)
      except (OSError, safetensors.SafetensorError) as error:
        raise refusal(
          directory / name, 'be safetensors', str(error), 'copy it again'
        ) from None
      for tensor in file.keys():  # noqa: SIM118 (no dict)
        if tensor in where:
          where[tensor] = 'several files'
        files[tensor], where[tensor] = (file, tensor), where.get(tensor, name)
      for alias, tensor in safetensors_files.aliases(file).items():
        other[alias] = file, tensor
    # What an index says of names that share a tensor, nobody can rely on.
    stored = {n: f for n, f in index.items() if n in where or n not in other}
    safetensors_files.check_places(directory, stored, where)
    files = other | files
    full = tensor_names.bare(directory, files, body, (unembed,))
    yield Tensors(directory, files, full)


def read_params(
  tensors: Tensors,
  weights: Iterable[Weight],
  buffers: str,
  unembed: str,
  embed: str,
  tied: bool,
) -> dict[str, Any]:
  """The parameter tree, from exactly the tensors that it needs.

  Args:
    tensors: of the model.
    weights: of the parameter tree.
    buffers: pattern of names that may be there and are not looked at.
    unembed: name of the unembedding.
    embed: name of the embedding.
    tied: whether they are one; then either is enough, and both must be equal.

  Raises:
    ValueError: if a tensor is missing, unknown, or of another shape or dtype.
  """
  names = tensors.names()
  if tied and unembed in names:
    if embed in names:
      _check_equal(tensors, unembed, embed)
    else:
      tensors.rename(unembed, embed)
  left = {n for n in tensors.names() if not re.fullmatch(buffers, n)}
  left -= {unembed} if tied else set()
  found = []
  for weight in weights:
    if weight.name not in left:
      ends, verb = (embed, unembed), 'ties' if tied else 'does not tie'
      raise refusal(
        tensors.directory,
        f'hold {weight.name}'
        + f' (or {unembed})' * (tied and weight.name == embed),
        'no such tensor',
        f'{CONFIG} {verb} {embed} and {unembed}: correct tie_word_embeddings, '
        'or copy the files again'
        if weight.name in ends
        else f'see that {CONFIG} belongs to the tensors, or copy them again',
      )
    tensors.check(weight.name, weight.shape)
    left.remove(weight.name)
    found.append(weight)
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
  tensors.check(other, tensors.shape(other))
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
    whole_file.writing(directory / safetensors_files.WHOLE) as whole,
  ):
    safetensors.numpy.save_file(arrays, whole, {'format': 'pt'})
    config.write_text(json.dumps(fields, indent=2) + '\n')
    # safetensors writes files that nobody else may read.
    shutil.copymode(config, whole)
