"""Files of torch.save (.pt), read and written without torch.

Only tensors in lists, tuples and dicts beside plain values are admitted, and
nothing in a file is ever executed. Arrays that are read are memory-mapped: they
cost address space until they are looked at, and the file has to stay as it is
while they are in use.
"""

import math
import mmap
import os
from typing import Any, NamedTuple

import numpy as np

from sparse_interp.files import regular
from sparse_interp.interop.torch_file import torch_archive, torch_unpickler
from sparse_interp.interop.torch_file.torch_unpickler import (
  Maker,
  RefusedError,
)
from sparse_interp.interop.torch_file.torch_writer import (
  KINDS,
  write,
)

__all__ = ['read', 'write']

_MOST_AXES = 32
_DEEPEST = 100
_MOST_ENTRIES = 10**8
_MOST_BYTES_OF_PICKLE = 64 * 2**20
# Tensors share bytes where matrices are tied. Others could be copied by their
# readers beyond any memory.
_MOST_SHARED = 8


def read(path: str | os.PathLike) -> Any:
  """Reads a file of torch.save in its zip format.

  Args:
    path: of the file.

  Returns:
    What was saved: dicts (also for ordered ones), lists, tuples, strings,
    numbers, booleans, None; tensors and parameters as read-only memory-mapped
    arrays with their own dtypes and strides, dtypes as numpy's.

  Raises:
    OSError: if the file cannot be read.
    ValueError: if it is damaged, or holds anything else.
  """
  with regular.open_file(path) as file:
    try:
      return _read(file)
    except RefusedError as error:
      raise ValueError(
        f'torch file {os.fspath(path)} must {error}; get it again, or save '
        'it again with torch.save as a dict of tensors.'
      ) from None


def _read(file):
  size = os.fstat(file.fileno()).st_size
  if not size:
    raise RefusedError('not be empty')
  places = torch_archive.find_members(file, size)
  # Private, since jax takes over writable memory only; nobody writes to it.
  mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

  def member(name):
    start, length = places[name]
    return memoryview(mapped)[start : start + length]

  if 'byteorder' in places and member('byteorder') != b'little':
    raise RefusedError('be of a little-endian machine')

  def load_storage(pid):
    return _storage(mapped, places, pid)

  if places['data.pkl'][1] > _MOST_BYTES_OF_PICKLE:
    raise RefusedError(
      f'have a data.pkl of at most {_MOST_BYTES_OF_PICKLE:,} bytes, not '
      f'{places["data.pkl"][1]:,}'
    )
  data = torch_unpickler.unpickle(member('data.pkl'), _NAMES, load_storage)
  described = _measure(data, {}, 0).bytes
  if described > _MOST_SHARED * size:
    raise RefusedError(
      f'hold the bytes of its tensors, but they are {described:,} in a file of '
      f'{size:,}'
    )
  return data


class _StorageKind(NamedTuple):
  """A class of storages."""

  dtype: np.dtype


class _Storage(NamedTuple):
  """Elements of one dtype in the mapped file, of which tensors are views."""

  mapped: mmap.mmap
  start: int
  dtype: np.dtype
  count: int


def _storage(mapped, places, pid):
  if type(pid) is not tuple or len(pid) != 5 or pid[0] != 'storage':
    raise RefusedError('refer to storages of tensors only')
  _, kind, key, _, count = pid
  if not isinstance(kind, _StorageKind) or type(count) is not int:
    raise RefusedError('give the dtype and the size of every storage')
  if not isinstance(key, str) or f'data/{key}' not in places:
    raise RefusedError(f'hold the storage {key!r:.100} that it refers to')
  start, length = places[f'data/{key}']
  if count * kind.dtype.itemsize != length:
    raise RefusedError(
      f'hold the {count:,} elements of {kind.dtype} that storage {key!r:.100} '
      f'declares, but it has {length:,} bytes'
    )
  return _Storage(mapped, start, kind.dtype, count)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_):
  """A view of a storage; whether it wants gradients does not matter here."""
  if not isinstance(storage, _Storage):
    raise RefusedError('make tensors from storages')
  tuples = type(shape) is tuple and type(strides) is tuple
  if not tuples or not len(shape) == len(strides) <= _MOST_AXES:
    raise RefusedError(f'have tensors of at most {_MOST_AXES} axes')
  for number in (offset, *shape, *strides):
    if type(number) is not int or not 0 <= number < 2**48:
      raise RefusedError('have natural numbers as sizes of tensors')
  extent = f'shape {shape}, strides {strides} and offset {offset}'
  # Along an axis of one entry, no stride matters.
  steps = [
    step if n != 1 else 1 for n, step in zip(shape, strides, strict=True)
  ]
  last = offset + sum(
    (n - 1) * step  # ty: ignore[unsupported-operator] (they are numbers)
    for n, step in zip(shape, steps, strict=True)
  )
  count = math.prod(shape)
  # Tensors that repeat their elements could grow beyond any memory.
  if count and not max(last + 1, count) <= storage.count:
    raise RefusedError(
      f'have tensors within their storages, but {extent} need more than '
      f'{storage.count:,} elements'
    )
  itemsize = storage.dtype.itemsize
  try:
    if not count:
      return np.empty(shape, storage.dtype)
    array = np.ndarray(
      shape,
      storage.dtype,
      storage.mapped,
      storage.start + offset * itemsize,
      [step * itemsize for step in steps],
    )
    array.flags.writeable = False
    return array
  except ValueError:
    raise RefusedError(
      f'have tensors that fit in memory, not {extent}'
    ) from None


def _parameter(tensor, *_):
  if not isinstance(tensor, np.ndarray):
    raise RefusedError('make parameters from tensors')
  return tensor


def _size(shape):
  if type(shape) is not tuple:
    raise RefusedError('have tuples as sizes')
  return shape


def _ordered_dict(pairs=()):
  if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
    raise RefusedError('make ordered dicts from pairs')
  return torch_unpickler.fill({}, [part for pair in pairs for part in pair])


_NAMES = {
  'collections.OrderedDict': Maker(_ordered_dict),
  'torch.Size': Maker(_size),
  'torch._utils._rebuild_parameter': Maker(_parameter),
  'torch._utils._rebuild_tensor_v2': Maker(_tensor),
  'torch.storage.UntypedStorage': _StorageKind(np.dtype(np.uint8)),
  **{f'torch.{name}Storage': _StorageKind(d) for name, d in KINDS.items()},
  **{f'torch.{dtype}': dtype for dtype in KINDS.values()},
}


class _Size(NamedTuple):
  """Of a value if it were written out: entries, depth, bytes of its tensors."""

  entries: int
  height: int
  bytes: int


def _measure(value, seen, depth) -> _Size:
  """How large a value is.

  A small pickle can refer to its own parts so often that a walk through what it
  describes would not end.
  """
  if isinstance(value, np.ndarray):
    return _Size(1, 0, value.nbytes)
  if isinstance(value, np.dtype | str | int | float | None):
    return _Size(1, 0, 0)
  if type(value) not in (dict, list, tuple):
    raise RefusedError('hold tensors and plain values only')
  if id(value) not in seen:
    if depth > _DEEPEST:
      raise RefusedError(f'be nested at most {_DEEPEST} deep')
    parts = value.values() if isinstance(value, dict) else value
    sizes = [_measure(part, seen, depth + 1) for part in parts]
    seen[id(value)] = _Size(
      1 + sum(size.entries for size in sizes),
      1 + max((size.height for size in sizes), default=0),
      sum(size.bytes for size in sizes),
    )
  size = seen[id(value)]
  if depth + size.height > _DEEPEST:
    raise RefusedError(f'be nested at most {_DEEPEST} deep')
  if size.entries > _MOST_ENTRIES:
    raise RefusedError(f'hold at most {_MOST_ENTRIES:,} entries')
  return size
