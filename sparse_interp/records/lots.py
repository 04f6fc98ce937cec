"""Random choices that follow from a seed and from what is chosen among, alone.

Whatever is to be chosen from gets a lot, a hash of its number and of who
chooses, and the lowest lots win. So it makes no difference in which order, in
what batches or in how many passes a text is read, nor which version of numpy
draws.
"""

import hashlib

import numpy as np
from jaxtyping import Int, UInt64

# The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(numbers: UInt64[np.ndarray, '*shape']) -> UInt64[np.ndarray, '*shape']:
  """A bijection of 64-bit numbers that leaves nothing of their order."""
  x = numbers + _GAMMA
  x = (x ^ (x >> np.uint64(30))) * _FIRST
  x = (x ^ (x >> np.uint64(27))) * _SECOND
  return x ^ (x >> np.uint64(31))


def key_of(seed: int, *words: str) -> np.uint64:
  """Who chooses: a hash of a seed and of words."""
  text = '\0'.join([str(seed), *words])
  digest = hashlib.sha256(text.encode()).digest()
  return np.uint64(int.from_bytes(digest[:8], 'little'))


def numbered(start: int, stop: int) -> UInt64[np.ndarray, '_']:
  """Mixed numbers from start to stop, for `lots`: the same for all who choose.

  Args:
    start: at least 0.
    stop: not in it.
  """
  return mix(np.arange(start, stop, dtype=np.uint64))


def lots(
  key: np.uint64, mixed: UInt64[np.ndarray, 'numbers']
) -> UInt64[np.ndarray, 'numbers']:
  """A lot for each number, no two alike: one pass over what is mixed already.

  Args:
    key: who chooses.
    mixed: what is chosen among, from `numbered`.
  """
  return (mixed ^ key) * _FIRST


def places(
  key: np.uint64, lots: UInt64[np.ndarray, 'numbers'], size: int
) -> Int[np.ndarray, 'numbers']:
  """A number below `size` for each lot."""
  return (mix(lots ^ key) % np.uint64(size)).astype(np.int64)
