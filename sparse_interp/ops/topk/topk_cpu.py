"""AbsTopK on a CPU, by a kernel of our own.

A row is read from memory once and searched in the first cache: each guess of
the threshold costs one count, and the search ends as soon as the count is k.
The first guess is the threshold of the row before, which is close; a search
takes 6 to 8 counts, where settling the bits of a threshold takes 31.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_interp.ops.cpu_kernels import native

_MAGNITUDE = np.int32(0x7FFFFFFF)
_ONE = np.int32(0x3F800000)  # the bits of 1.0
_FIRST_STEP = 2**20  # an eighth of a factor of two
_LARGEST_STEP = 2**28


@native.machine_code
def _count(row, least):
  """How many magnitudes are at or above `least`, given as bits."""
  count = np.int32(0)
  for i in range(row.size):
    # Numba widens sums; kept at 32 bits a vector holds twice as many.
    is_above = np.int32(row[i] & _MAGNITUDE) >= least
    count = np.int32(count + np.int32(is_above))
  return count


@native.machine_code
def _threshold(row, k, guess):
  """Bits t with at least k magnitudes >= t, and fewer above; their number.

  Moves from the guess in steps that grow until the threshold lies between two
  of them, then halves what is left.
  """
  low, high = np.int32(0), _MAGNITUDE
  at_low = np.int32(row.size)
  step = _FIRST_STEP
  bounded_below = bounded_above = False
  while high - low > 1:
    count = _count(row, guess)
    if count >= k:
      low, at_low, bounded_below = guess, count, True
      if count == k:
        break
    else:
      high, bounded_above = guess, True
    if bounded_below and bounded_above:
      guess = np.int32(low + (high - low) // 2)
      continue
    move = step if bounded_below else -step
    # Never outside of what is left.
    guess = np.int32(min(max(guess + move, low + 1), high - 1))
    step = min(4 * step, _LARGEST_STEP)
  return low, at_low


@native.machine_code
def _keep(row, least, kept):
  """Copies what is at or above `least`; the rest becomes 0."""
  for i in range(row.size):
    is_above = np.int32(row[i] & _MAGNITUDE) >= least
    kept[i] = row[i] if is_above else np.int32(0)


@native.machine_code
def _drop_late_ties(row, least, room, kept):
  """Of what `_keep` kept, drops all at `least` but the first `room`."""
  for i in range(row.size):
    if row[i] & _MAGNITUDE == least:
      if room == 0:
        kept[i] = 0
      else:
        room -= 1
        # A zero that is kept is -0, so that it can be told from the others.
        kept[i] = row[i] if least else ~_MAGNITUDE


@native.machine_code
def abs_topk_of_rows(state, part, parts):
  """x, k -> y; threads share the rows."""
  x, y = native.ints(state, 0), native.ints(state, 2)
  k = native.ints(state, 1)[0]
  rows, width = native.size(state, 0, 0), native.size(state, 0, 1)
  guess = _ONE
  for i in range(rows * part // parts, rows * (part + 1) // parts):
    row, kept = x[i * width : (i + 1) * width], y[i * width : (i + 1) * width]
    least, count = _threshold(row, k, guess)
    guess = max(guess if least == 0 else least, np.int32(1))
    _keep(row, least, kept)
    if count > k:
      _drop_late_ties(row, least, k - _count(row, np.int32(least + 1)), kept)


def abs_topk_rows(
  x: Float[Array, 'rows width'], k: int
) -> Float[Array, 'rows width']:
  """Keeps the k largest magnitudes of every row; zeros kept come out as -0.

  Args:
    x: float32.
    k: in [1, width).
  """
  y = jax.ShapeDtypeStruct(x.shape, jnp.float32)
  (y,) = native.call(abs_topk_of_rows, [y], x, jnp.full(1, k, jnp.int32))
  return y
