"""Large arrays of other files, copied once, transposed or not."""

import concurrent.futures
import mmap
import os
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

# Rows of the source per step: a cache line of the target, if it is transposed.
_ROWS = 16
_CHUNK = 1 << 22
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
  return _copy(array, array.dtype)


def to_jax(array: Float[np.ndarray, '...']) -> Float[Array, '...']:
  """The only copy of an array: float32, in memory that jax takes over.

  Pages of a memory-mapped file that have been copied are given back, so that
  the file does not count twice.
  """
  # Without the copy, whoever changed the file would change the parameters.
  return jax.device_put(_copy(array, np.dtype(np.float32)), may_alias=True)


def all_to_jax(
  arrays: Iterable[Callable[[], Float[np.ndarray, '...']]],
) -> list[Float[Array, '...']]:
  """Arrays, of which few are open at a time, in parallel."""
  workers = min(4, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    return list(pool.map(lambda array: to_jax(array()), arrays))


def _copy(array, dtype):
  target = _empty(array.shape, dtype)
  turned = array.ndim == 2 and not array.flags.c_contiguous
  source, result = (array.T, target.T) if turned else (array, target)
  source, result = np.atleast_1d(source), np.atleast_1d(result)
  if not source.size:
    return target
  chunk = max(1, _CHUNK * len(source) // source.nbytes)
  chunk = -(-chunk // _ROWS) * _ROWS
  for start in range(0, len(source), chunk):
    part = source[start : start + chunk]
    step = _ROWS if turned else chunk
    for row in range(0, len(part), step):
      result[start + row : start + row + step] = part[row : row + step]
    _forget(part)
  return target


def _empty(shape, dtype):
  size = int(np.prod(shape)) * dtype.itemsize
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + size].view(dtype).reshape(shape)


def _forget(part):
  """Gives back the pages under a part of a memory-mapped array."""
  mapped = part
  while isinstance(mapped, np.ndarray):
    mapped = mapped.base
  if not isinstance(mapped, mmap.mmap) or not part.flags.c_contiguous:
    return
  if not hasattr(mmap, 'MADV_DONTNEED'):
    return
  first = np.frombuffer(mapped, np.uint8, 1).ctypes.data
  start = part.ctypes.data - first
  stop = start + part.nbytes
  # Pages at both ends may hold other arrays; they are read again if needed.
  start -= start % mmap.PAGESIZE
  mapped.madvise(mmap.MADV_DONTNEED, start, min(stop, len(mapped)) - start)
