"""Writes files of torch.save (.pt) without torch, one block after the other."""

import collections
import itertools
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.files import whole_file
from sparse_interp.interop.torch_file import copying

KINDS = {
  'Double': np.dtype(np.float64),
  'Float': np.dtype(np.float32),
  'Half': np.dtype(np.float16),
  'BFloat16': np.dtype(jnp.bfloat16),
  'Long': np.dtype(np.int64),
  'Int': np.dtype(np.int32),
  'Short': np.dtype(np.int16),
  'Char': np.dtype(np.int8),
  'Byte': np.dtype(np.uint8),
  'Bool': np.dtype(np.bool_),
}
_KIND_OF = {dtype: kind for kind, dtype in KINDS.items()}
# Where torch puts storages, too, so that they can be mapped where they are.
_ALIGNMENT = 64
_BLOCK = 1 << 24
_BATCH = 1000
_DEEPEST = 100


def write(path: str | os.PathLike, data: Any) -> None:
  """Writes what torch.load(weights_only=True) reads, or nothing.

  Arrays become tensors, of which only a block at a time is held in memory;
  arrays that share all of their memory become one storage. Equal data give
  equal files.

  Args:
    path: of the file; it is replaced if it exists.
    data: dicts (ordered ones stay so), lists and tuples of arrays, strings,
      ints, floats, booleans and None.

  Raises:
    OSError: if the file cannot be written.
    ValueError: if there is anything else in the data.
  """
  path = pathlib.Path(path)
  arrays = _Arrays()
  pickled = b'\x80\x02' + b''.join(_pickle(data, arrays, 0)) + b'.'
  with whole_file.writing(path) as part:
    with open(part, 'wb') as file:
      _write_archive(file, path.stem, pickled, arrays.storages)


class _Arrays:
  """The storages of a file, by number, one for each memory."""

  def __init__(self):
    self.storages, self._numbers = [], {}

  def number(self, array: np.ndarray) -> int:
    address = array.__array_interface__['data'][0]
    memory = address, array.shape, array.strides, array.dtype
    if memory not in self._numbers:
      self._numbers[memory] = len(self.storages)
      self.storages.append(array)
    return self._numbers[memory]


def _pickle(value: Any, arrays: _Arrays, depth: int) -> Iterator[bytes]:
  """The opcodes that make a value."""
  if depth > _DEEPEST:
    raise ValueError(
      f'data for torch must be nested at most {_DEEPEST} deep, got more; '
      'flatten it.'
    )
  kind = type(value)
  if value is None:
    yield b'N'
  elif kind is bool:
    yield b'\x88' if value else b'\x89'
  elif kind is int:
    yield _pickle_int(value)
  elif isinstance(value, float):
    yield b'G' + struct.pack('>d', value)
  elif kind is str:
    text = value.encode()
    yield b'X' + struct.pack('<I', len(text)) + text
  elif kind is tuple:
    yield b'('
    for part in value:
      yield from _pickle(part, arrays, depth + 1)
    yield b't'
  elif kind is list:
    yield b']'
    yield from _pickle_batches(([part] for part in value), b'e', arrays, depth)
  elif kind in (dict, collections.OrderedDict):
    yield b'}' if kind is dict else b'ccollections\nOrderedDict\n)R'
    yield from _pickle_batches(value.items(), b'u', arrays, depth)
  elif isinstance(value, np.ndarray | jax.Array):
    yield from _pickle_array(np.asarray(value), arrays, depth)
  else:
    raise ValueError(
      'data for torch must be arrays, strings, numbers, booleans or None in '
      f'lists, tuples and dicts, got a {kind.__name__}; convert it.'
    )


def _pickle_batches(groups, end, arrays, depth):
  groups = iter(groups)
  while batch := list(itertools.islice(groups, _BATCH)):
    yield b'('
    for part in itertools.chain.from_iterable(batch):
      yield from _pickle(part, arrays, depth + 1)
    yield end


def _pickle_int(value):
  if -(2**31) <= value < 2**31:
    return b'J' + struct.pack('<i', value)
  size = value.bit_length() // 8 + 1
  if size > 255:
    raise ValueError(
      'data for torch must have integers of at most 2000 bits, got more; '
      'store it as text.'
    )
  return b'\x8a' + bytes([size]) + value.to_bytes(size, 'little', signed=True)


def _pickle_array(array, arrays, depth):
  if array.dtype not in _KIND_OF:
    raise ValueError(
      f'data for torch must have arrays of {", ".join(map(str, _KIND_OF))}, '
      f'got {array.dtype}; convert it with astype.'
    )
  kind, storage = _KIND_OF[array.dtype], str(arrays.number(array))
  strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]

  def plain(value):
    return b''.join(_pickle(value, arrays, depth))

  yield b'ctorch._utils\n_rebuild_tensor_v2\n(('
  yield plain('storage') + f'ctorch\n{kind}Storage\n'.encode()
  yield plain(storage) + plain('cpu') + plain(array.size) + b'tQ'
  yield plain(0) + plain(array.shape) + plain(tuple(strides)) + plain(False)
  # No hooks.
  yield b'ccollections\nOrderedDict\n)RtR'


def _write_archive(file: BinaryIO, root, pickled, storages):
  with zipfile.ZipFile(file, 'w') as archive:
    _write_member(archive, f'{root}/data.pkl', len(pickled), [pickled])
    _write_member(archive, f'{root}/byteorder', 6, [b'little'])
    for number, array in enumerate(storages):
      name = f'{root}/data/{number}'
      _write_member(archive, name, array.nbytes, _blocks(array))
    _write_member(archive, f'{root}/version', 2, [b'3\n'])


def _write_member(archive, name, size, blocks):
  info = zipfile.ZipInfo(name)
  large = size >= 2**31
  header = 30 + len(name.encode()) + 4 + (20 if large else 0)
  padding = -(archive.fp.tell() + header) % _ALIGNMENT
  info.extra = struct.pack('<2sH', b'FB', padding) + bytes(padding)
  with archive.open(info, 'w', force_zip64=large) as member:
    for block in blocks:
      member.write(block)


def _blocks(array: np.ndarray) -> Iterator[memoryview]:
  """The bytes of an array in C order; only a block of them is ever copied."""
  array = np.atleast_1d(array)
  if not array.size:
    return
  rows = max(1, _BLOCK * len(array) // array.nbytes)
  for start in range(0, len(array), rows):
    block = copying.contiguous(array[start : start + rows])
    yield block.view(np.uint8).reshape(-1).data
