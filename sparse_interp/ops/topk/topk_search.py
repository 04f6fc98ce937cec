"""The search of `topk` in plain jax, for every device and for CPUs.

The bits of a non-negative float, read as an integer, are ordered like the
float. The k-th largest magnitude is therefore found by building its 31 bits
from the top: a bit stays set if at least k entries are at or above the
candidate. Each pass is one compare and one count, so a sharded array costs one
scalar reduction a pass and is never gathered. Ties at the threshold are broken
by index: the lowest ones are kept.

Source: AbsTopK and the weight projection of arXiv 2511.13653 (sections 2 and
A.1); the search replaces the radix top-k that its authors found slow.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int16, Int32

from sparse_interp.ops.topk.topk_bits import magnitude_bits, written_down

# Counts up to this one take fewer passes one maximum after the other than by
# bits.
_FEW = 8


def _count(
  chosen: Bool[Array, '...'], axes: tuple[int, ...]
) -> Int32[Array, '...']:
  """Number of chosen entries along `axes` (kept).

  The first axis is summed alone, which vectorises along the last one: 3 times
  faster on a CPU than one sum over all. The mask, which no count reaches, stops
  XLA from merging the two sums again.
  """
  ones = chosen.astype(jnp.int32)
  if axes[0] == 0 and len(axes) > 1:
    ones = jnp.sum(ones, axis=0, keepdims=True) & 0x7FFFFFFF
  return jnp.sum(ones, axis=axes, keepdims=True)


def kth_largest(
  bits: Int32[Array, '...'],
  count: Int[Array, '...'] | int,
  axes: tuple[int, ...],
) -> Int32[Array, '...']:
  """Largest t with at least `count` of `bits` >= t, along `axes` (kept)."""

  def settle_bit(i, threshold):
    candidate = threshold | (jnp.int32(1) << (30 - i))
    above = _count(bits >= candidate, axes)
    return jnp.where(above >= count, candidate, threshold)

  start_shape = [1 if i in axes else n for i, n in enumerate(bits.shape)]
  return lax.fori_loop(0, 31, settle_bit, jnp.zeros(start_shape, jnp.int32))


def kth_largest_of_few(
  bits: Int32[Array, '...'], count: int, axis: int
) -> Int32[Array, '...']:
  """The same threshold along one axis for a small count, by maxima in turn."""
  threshold = jnp.max(bits, axis=axis, keepdims=True)
  for _ in range(count - 1):
    above = _count(bits >= threshold, (axis,))
    below = jnp.where(bits < threshold, bits, -1)
    following = jnp.max(below, axis=axis, keepdims=True)
    threshold = jnp.where(above >= count, threshold, following)
  return threshold


def flat_index(
  shape: tuple[int, ...], axes: tuple[int, ...]
) -> Int32[Array, '...']:
  """Position of every entry in the flattened `axes`, in C order."""
  sizes = [shape[a] for a in axes]
  strides = np.cumprod([1, *sizes[:0:-1]])[::-1]
  return sum(
    int(stride) * lax.broadcasted_iota(jnp.int32, shape, axis)
    for axis, stride in zip(axes, strides, strict=True)
  )


def _bound_of_first(
  tied: Bool[Array, '...'],
  count: Int[Array, '...'],
  axes: tuple[int, ...],
) -> Int32[Array, '...']:
  """The `flat_index` below which exactly `count` of `tied` lie (axes kept).

  First the number of whole slices of the first axis, by bisection, then a bound
  inside the next one. A cumulative sum would do the same but gathers a sharded
  array.
  """
  axis, *others = axes
  in_slice = _count(tied, tuple(others)) if others else tied.astype(jnp.int32)
  position = lax.broadcasted_iota(jnp.int32, in_slice.shape, axis)
  n_bits = max(1, tied.shape[axis].bit_length())

  def before(slices):
    counted = jnp.where(position < slices, in_slice, 0)
    return jnp.sum(counted, axis=axis, keepdims=True)

  def settle_bit(i, slices):
    candidate = slices | (jnp.int32(1) << (n_bits - 1 - i))
    return jnp.where(before(candidate) <= count, candidate, slices)

  start_shape = [1 if i in axes else n for i, n in enumerate(tied.shape)]
  slices = lax.fori_loop(
    0, n_bits, settle_bit, jnp.zeros(start_shape, jnp.int32)
  )
  # All slices may be whole: the last bits then pass their number.
  slices = jnp.minimum(slices, tied.shape[axis])
  if not others:
    return slices
  index = lax.broadcasted_iota(jnp.int32, tied.shape, axis)
  following = jnp.any(tied & (index == slices), axis=axis, keepdims=True)
  inside = _bound_of_first(following, count - before(slices), tuple(others))
  stride = math.prod(tied.shape[a] for a in others)
  return slices * stride + jnp.where(slices < tied.shape[axis], inside, 0)


def _bound_of_first_in_rows(
  tied: Bool[Array, '*rows width'], count: Int32[Array, '*rows 1']
) -> Int32[Array, '*rows 1']:
  """The same along the last axis, made for CPUs; width below 2**15 - 1."""
  width = tied.shape[-1]
  index = lax.broadcasted_iota(jnp.int16, tied.shape, tied.ndim - 1)
  earliness = jnp.where(tied, jnp.int16(width) - index, jnp.int16(0))
  keys = _group_row(earliness, jnp.int16(0))
  n_bits = (width + 1).bit_length()
  latest = _settle_half(keys, count, (-1,), n_bits=n_bits, offset=0)
  return width + 1 - latest


def _kth_largest_by_halves(
  bits: Int32[Array, '... width'], count: Int[Array, ''] | int, whole: int
) -> Int32[Array, '...']:
  """The same threshold along the last `whole` axes, made for CPUs.

  There the search is bound by memory, so it looks at 16 bits at a time: at the
  upper halves first, then at the lower halves of the entries whose upper half
  is the threshold's.
  """
  axes = tuple(range(-whole, 0))
  group = _group_rows if whole > 1 else _group_row
  upper = (bits >> 16).astype(jnp.int16)
  keys = group(upper, jnp.int16(-1))
  upper_threshold = _settle_half(keys, count, axes, n_bits=15, offset=0)
  tied = upper == upper_threshold.astype(jnp.int16)
  above = upper > upper_threshold.astype(jnp.int16)
  # Entries decided by their upper half are put at the ends of the range.
  lowest = jnp.int16(-(2**15))
  lower = ((bits & 0xFFFF) - 2**15).astype(jnp.int16)
  lower = jnp.where(above, jnp.int16(2**15 - 1), lower)
  lower = jnp.where(above | tied, lower, lowest)
  keys = group(lower, lowest)
  lower_threshold = _settle_half(keys, count, axes, n_bits=16, offset=2**15)
  return (upper_threshold << 16) | lower_threshold


def _group_row(
  keys: Int16[Array, '*rows width'], lowest: Int16[Array, '']
) -> Int16[Array, '*rows group lanes']:
  """A vector as at most 31 vectors, padded with what is never counted."""
  width, lanes = keys.shape[-1], 32
  while width > 31 * lanes:
    lanes *= 2
  padding = [(0, 0)] * (keys.ndim - 1) + [(0, -width % lanes)]
  keys = jnp.pad(keys, padding, constant_values=lowest)
  return keys.reshape(*keys.shape[:-1], -1, lanes)


def _group_rows(
  keys: Int16[Array, '*batch rows lanes'], lowest: Int16[Array, '']
) -> Int16[Array, '*batch groups 16 lanes']:
  """The rows of a matrix 16 at a time, padded with what is never counted."""
  padding = [(0, 0)] * keys.ndim
  padding[-2] = (0, -keys.shape[-2] % 16)
  keys = jnp.pad(keys, padding, constant_values=lowest)
  return keys.reshape(*keys.shape[:-2], -1, 16, keys.shape[-1])


def _settle_half(
  keys: Int16[Array, '*batch group lanes'],
  count: Int[Array, '...'] | int,
  axes: tuple[int, ...],
  n_bits: int,
  offset: int,
) -> Int32[Array, '...']:
  """Largest t below 2**n_bits with at least `count` of keys + offset >= t.

  A pass settles two bits. It counts for three candidates at once, packed into
  one int16 as three 5-bit fields, in groups so small that no field overflows.
  What is left after a group is summed along `axes` (kept).
  """

  def settle(threshold, candidates):
    packed = sum(
      (keys >= jnp.expand_dims((c - offset).astype(jnp.int16), -2)).astype(
        jnp.int16
      )
      << (5 * i)
      for i, c in enumerate(candidates)
    )
    packed = jnp.sum(packed, axis=-2, dtype=jnp.int16)
    for i, candidate in enumerate(candidates):
      field = ((packed >> (5 * i)) & 31).astype(jnp.int32)
      above = jnp.sum(field, axis=axes, keepdims=True)
      threshold = jnp.where(above >= count, candidate, threshold)
    return threshold

  def settle_two_bits(i, threshold):
    low = jnp.int32(1) << (n_bits - n_bits % 2 - 2 - 2 * i)
    high = low << 1
    return settle(
      threshold, (threshold | low, threshold | high, threshold | high | low)
    )

  start_shape = [*keys.shape[:-2], keys.shape[-1]]
  for axis in axes:
    start_shape[axis] = 1
  threshold = jnp.zeros(start_shape, jnp.int32)
  if n_bits % 2:
    threshold = settle(threshold, (threshold | 1 << (n_bits - 1),))
  return lax.fori_loop(0, n_bits // 2, settle_two_bits, threshold)


def keep(
  x: Float[Array, '...'],
  count: Int[Array, ''] | int,
  axes: tuple[int, ...],
  halves: bool,
) -> Bool[Array, '...']:
  """Marks exactly `count` largest magnitudes along `axes`.

  Args:
    x: floats.
    count: in [0, size along `axes`]; ties go to the lowest index. A small
      Python int along one axis takes few passes.
    axes: along which entries compete, in ascending order.
    halves: search as is fastest on a CPU, where that is known: along the last
      axis or the last two.
  """
  x = written_down(x)
  last = x.ndim - 1
  few = isinstance(count, int) and 0 < count <= _FEW
  bits = magnitude_bits(x)
  if halves and axes in ((last,), (last - 1, last)):
    threshold = _kth_largest_by_halves(bits, count, len(axes))
  elif few and len(axes) == 1:
    threshold = kth_largest_of_few(bits, count, *axes)
  else:
    threshold = kth_largest(bits, count, axes)
  count = jnp.asarray(count, jnp.int32)
  bound = _bound_of_ties(x, threshold, count, axes, halves)
  tied = (bits == threshold) & (flat_index(x.shape, axes) < bound)
  return ((bits > threshold) | tied) & (count > 0)


def _bound_of_ties(x, threshold, count, axes, halves):
  """The index below which entries at the threshold are kept.

  Branches have x and find its bits again, so that these, and the mask that is
  made from the bound, need not be written to memory.
  """
  everything = math.prod(x.shape[axis] for axis in axes)
  kept = _count(magnitude_bits(x) >= threshold, axes)

  def drop_late_ties():
    bits = magnitude_bits(x)
    room = count - _count(bits > threshold, axes)
    tied = bits == threshold
    if halves and axes == (x.ndim - 1,) and everything < 2**15 - 1:
      return _bound_of_first_in_rows(tied, room)
    return _bound_of_first(tied, room, axes)

  # Ties are rare among float32 values: look at indices only if there are any.
  return lax.cond(
    jnp.all(kept == count),
    lambda: jnp.full_like(threshold, everything),
    drop_late_ties,
  )
