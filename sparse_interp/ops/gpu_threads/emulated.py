"""A program of single threads, run in numpy: an array entry for each thread.

Threads of a block go in step. One that a condition or a loop leaves out keeps
what it had, and neither reads nor writes. Memory that no one has written is
poisoned, a place outside of an array or not aligned is an error, and so is a
sum over a warp of which some lanes are left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int32, Shaped

_WARP = 32

# A NaN as a word or as two halves, and far outside of any array as an index.
_POISON = 0x7FDE7FDE

Body = Callable[..., Any]
Lanes = Shaped[np.ndarray, 'threads']


class Memory:
  """An array in global or shared memory, as bytes."""

  def __init__(
    self, data: Shaped[np.ndarray, '...'] | None, size=0, dtype=None
  ):
    if data is None:
      words = np.full(-(-size * dtype.itemsize // 4), _POISON, np.int32)
      data = words.view(np.uint8)[: size * dtype.itemsize].view(dtype)
    self.array = np.ascontiguousarray(data).reshape(-1)
    self.itemsize = self.array.dtype.itemsize

  def halves(self) -> Shaped[np.ndarray, 'halves']:
    """The same memory, 16 bits at a time."""
    return self.array.view(np.uint16)


class Threads:
  """The operations of the threads of a block.

  Attributes:
    block: number of the block.
    thread: number of the thread in its block.
    lane: number of the thread in its warp.
    warp: number of the warp in its block.
  """

  def __init__(self, threads: int, block: int):
    self.thread = np.arange(threads, dtype=np.int32)
    self.block = np.full(threads, block, np.int32)
    self.lane, self.warp = self.thread % _WARP, self.thread // _WARP
    self._active: Bool[np.ndarray, 'threads'] = np.ones(threads, bool)
    self._under_way: list[Callable[[], None]] = []

  def whole(self, value: int) -> Int32[np.ndarray, 'threads']:
    """A whole number."""
    return np.full(self.thread.shape, value, np.int64).astype(np.int32)

  def real(self, value: float) -> Lanes:
    """A float32."""
    return np.full(self.thread.shape, value, np.float32)

  def _places(self, memory: Memory, index: Lanes, nbytes: int) -> Any:
    """First half word of each active thread, checked."""
    first = index[self._active].astype(np.int64) * memory.itemsize
    if first.size:
      last = int(first.max()) + nbytes
      if first.min() < 0 or last > memory.array.nbytes:
        raise IndexError(
          f'bytes {first.min()} to {last} of an array of {memory.array.nbytes}'
        )
      if (first % nbytes).any():
        raise IndexError(f'not aligned to {nbytes} bytes')
    return first // 2

  def words(
    self,
    memory: Memory,
    index: Lanes,
    count: int,
    offset: int = 0,
    constant: bool = False,
    again: bool = False,
  ) -> list[Lanes]:
    """Reads words of 32 bits that lie one after the other.

    Args:
      memory: where.
      index: of the first, counted in entries of the array; aligned to all.
      count: 1, 2 or 4.
      offset: added to the index.
      constant: nothing writes there while the kernel runs.
      again: not to be kept in registers from one time to the next.
    """
    del constant, again
    place, found = self._places(memory, index + np.int32(offset), 4 * count), []
    for i in range(count):
      word = np.full(self.thread.shape, _POISON, np.int32)
      low, high = (
        memory.halves()[place + 2 * i + j].astype(np.uint32) for j in (0, 1)
      )
      word[self._active] = (low | (high << 16)).view(np.int32)
      found.append(word)
    return found

  def put_words(
    self, memory: Memory, index: Lanes, offset: int, words: Sequence[Lanes]
  ) -> None:
    """Writes words of 32 bits one after the other; see `words`."""
    place = self._places(memory, index + np.int32(offset), 4 * len(words))
    for i, word in enumerate(words):
      bits = word[self._active].view(np.uint32)
      memory.halves()[place + 2 * i] = bits & 0xFFFF
      memory.halves()[place + 2 * i + 1] = bits >> 16

  def put_half(
    self, memory: Memory, index: Lanes, offset: int, half: Lanes
  ) -> None:
    """Writes the lower 16 bits."""
    place = self._places(memory, index + np.int32(offset), 2)
    memory.halves()[place] = half[self._active].view(np.uint32) & 0xFFFF

  def copy_async(
    self,
    source: Memory,
    source_index: Lanes,
    target: Memory,
    target_index: Lanes,
    offset: int = 0,
  ) -> None:
    """Starts to copy 16 bytes from global memory to shared.

    Args:
      source: in global memory.
      source_index: of the first entry.
      target: in shared memory.
      target_index: of the first entry.
      offset: added to the index in the target.
    """
    words = self.words(source, source_index, 4)
    active = self._active

    def arrive():
      before, self._active = self._active, active
      self.put_words(target, target_index, offset, words)
      self._active = before

    self._under_way.append(arrive)

  def end_of_copies(self) -> None:
    """No more copies belong to those that are waited for."""

  def wait_for_copies(self) -> None:
    """The copies of this thread have arrived; a warp needs a barrier too."""
    for arrive in self._under_way:
      arrive()
    self._under_way.clear()

  def shift_right(self, word: Lanes, places: int) -> Lanes:
    """Shifts zeros in from the left."""
    return (word.view(np.uint32) >> np.uint32(places)).view(np.int32)

  def quotient(self, number: Lanes, by: int) -> Lanes:
    """number // by of numbers that are not negative; slow."""
    return number // np.int32(by)

  def as_float(self, word: Lanes) -> Lanes:
    """The float32 of these bits."""
    return word.view(np.float32)

  def as_word(self, number: Lanes) -> Lanes:
    """The bits of a float32."""
    return number.view(np.int32)

  def narrow(self, number: Lanes) -> Lanes:
    """The bits of a float32 rounded to bfloat16."""
    return number.astype(jnp.bfloat16).view(np.uint16).astype(np.int32)

  def fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a * b + c, rounded once."""
    wide = a.astype(np.float64) * b.astype(np.float64) + c
    return wide.astype(np.float32)

  def select(self, condition: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """a where the condition holds, else b."""
    return np.where(condition, a, b)

  def count_up(self, count: Lanes, word: Lanes, negated: Lanes) -> Lanes:
    """count + 1 where the word, without a sign, is at least -negated."""
    wide = word.view(np.uint32).astype(np.uint64) + negated.view(np.uint32)
    return count + (wide >> np.uint64(32)).astype(np.int32)

  def to_float(self, number: Lanes) -> Lanes:
    """The float32 nearest to a whole number."""
    return number.astype(np.float32)

  def to_int(self, number: Lanes) -> Lanes:
    """A float32 without what follows the point."""
    with np.errstate(invalid='ignore'):
      return number.astype(np.int32)

  def times(self, a: Lanes, b: Lanes) -> Lanes:
    """a * b of float32."""
    return a * b

  def divided(self, a: Lanes, b: Lanes) -> Lanes:
    """a / b of float32, to a unit of the last place or two."""
    with np.errstate(divide='ignore', invalid='ignore'):
      return a / b

  def minimum(self, a: Lanes, b: Lanes) -> Lanes:
    """The smaller of two whole numbers."""
    return np.minimum(a, b)

  def maximum(self, a: Lanes, b: Lanes) -> Lanes:
    """The larger of two whole numbers."""
    return np.maximum(a, b)

  def as_count(self, condition: Lanes) -> Lanes:
    """1 where the condition holds, else 0."""
    return condition.astype(np.int32)

  def warp_sum(self, value: Lanes) -> Lanes:
    """Sum over the warp, in each of its lanes."""
    return self._over_warp(value, np.sum)

  def warp_max(self, value: Lanes) -> Lanes:
    """Largest of the warp, in each of its lanes."""
    return self._over_warp(value, np.max)

  def _over_warp(self, value, reduce):
    self.warp_barrier()
    found = reduce(value.reshape(-1, _WARP), axis=1).astype(np.int32)
    return np.repeat(found, _WARP)

  def warp_barrier(self) -> None:
    """All lanes of a warp see what the others wrote."""
    active = self._active.reshape(-1, _WARP)
    if (active.any(axis=1) != active.all(axis=1)).any():
      raise RuntimeError('a warp meets without some of its lanes')

  def block_barrier(self) -> None:
    """All threads of a block see what the others wrote."""
    if not self._active.all():
      raise RuntimeError('a block meets without some of its threads')

  def when(self, condition: Lanes, body: Body) -> None:
    """Runs the body in the threads where the condition holds."""
    before = self._active
    self._active = before & condition
    if self._active.any():
      body()
    self._active = before

  def loop(
    self,
    begin: Lanes,
    end: Lanes,
    body: Body,
    carry: Sequence[Lanes] = (),
    step: int = 1,
  ) -> list[Lanes]:
    """`carry = body(i, *carry)` for i from begin to before end."""

    def following(i, *carry):
      return i + np.int32(step), *(body(i, *carry) or ())

    first = (begin.astype(np.int32), *carry)
    return self.repeat(lambda i, *_: i < end, following, first)[1:]

  def repeat(
    self, condition: Body, body: Body, carry: Sequence[Lanes]
  ) -> list[Lanes]:
    """`carry = body(*carry)` while a condition holds."""
    before, carry = self._active, list(carry)
    while True:
      self._active = self._active & condition(*carry)
      if not self._active.any():
        break
      carry = [
        np.where(self._active, new, old)
        for new, old in zip(body(*carry), carry, strict=True)
      ]
    self._active = before
    return carry
