"""Large arrays of other files: handed to jax as they lie, or copied once."""

import mmap

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

# Rows of the source per step: a cache line of the target, if it is transposed.
_ROWS = 16
# What the CPU backend of jax asks of memory that it takes over.
_ALIGNMENT = 64


def contiguous(
  array: Shaped[np.ndarray, '...'],
) -> Shaped[np.ndarray, '...']:
  """The array itself or a copy, with its elements one after the other.

  Matrices whose transposes are contiguous are copied in strips that fit into
  the cache, several times faster than by numpy.
  """
  if array.flags.c_contiguous:
    return array
  if array.ndim != 2 or not array.flags.f_contiguous:
    return np.ascontiguousarray(array)
  result = np.empty(array.shape, array.dtype)
  for row in range(0, array.shape[1], _ROWS):
    result[:, row : row + _ROWS] = array[:, row : row + _ROWS]
  return result


def to_jax(array: Float[np.ndarray, '...']) -> Float[Array, '...']:
  """An array of jax, float32, without a copy where that is possible.

  On the CPU, memory-mapped float32 arrays stay where they are, also if they
  are transposed: jax knows layouts. They are read when they are first looked
  at; others are copied once.
  """
  if jax.default_backend() != 'cpu' or not array.size:
    return jax.numpy.asarray(array, np.float32)
  turned = array.flags.f_contiguous and not array.flags.c_contiguous
  source = array.T if turned else array
  if source.dtype != np.float32 or not _is_usable(source):
    source = _aligned(source)
  else:
    source = _writable(source)
  return jax.dlpack.from_dlpack(source.T if turned else source)


def _is_usable(array):
  aligned = array.ctypes.data % _ALIGNMENT == 0
  return aligned and array.flags.c_contiguous and _mapped(array) is not None


def _mapped(array):
  while isinstance(array, np.ndarray):
    array = array.base
  return array if isinstance(array, mmap.mmap) else None


def _writable(array):
  """The same memory in an array that says it can be written to.

  Numpy hands over no other; jax never writes to what it did not allocate.
  """
  mapped = _mapped(array)
  start = array.ctypes.data - np.frombuffer(mapped, np.uint8, 1).ctypes.data
  return np.ndarray(array.shape, array.dtype, mapped, start)


def _aligned(array):
  memory = np.empty(4 * array.size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  memory = memory[start : start + 4 * array.size]
  result = memory.view(np.float32).reshape(array.shape)
  result[...] = array
  return result
