"""Top-k on Hopper GPUs: the loops of `topk`, with all counting on chip.

Two families of kernels: those of `topk_warps`, and for rows that do not fit
the registers of a warp those written here. AbsTopK takes one row per thread
block: a row is read once into registers, searched there and written once. The
projection counts a whole tensor against
several candidates in one read. Mosaic GPU is written for with the semantics of
lanes, which offer reductions to a scalar in both versions of jax.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import compat, machine
from sparse_interp.ops.topk import topk_warps

# Of AbsTopK: a row for each of so many warps of a block, or for a whole one.
ROW_VARIANTS = {'warps4': 4, 'warps8': 8, 'warps12': 12, 'block': None}
ROW_VARIANT = 'block'

# Threads of a block; a vector is split over them.
_THREADS = 128

# Beyond this a row does not fit the registers of a block.
WIDEST_ROW = 16384

# Words that a block reads at a time, 16 bytes per thread.
_TILE = 4 * _THREADS

# Blocks per multiprocessor: enough reads in flight to keep memory busy.
_BLOCKS = 12


def _params() -> plgpu.CompilerParams:
  return compat.gpu_params(lowering_semantics=plgpu.LoweringSemantics.Lane)


def _load(ref: Any, index: Any, interpret: Any) -> Array:
  """Reads a vector, up to 4 entries per thread at a time."""
  vector = ref[index]
  if interpret is not None:  # which knows nothing of layouts
    return vector
  size = vector.shape[0]
  entries = math.gcd(4, size // _THREADS)
  return plgpu.layout_cast(vector, plgpu.Layout.WG_STRIDED((size,), entries))


def _search(first: int, last: int, fits: Any) -> Any:
  """Largest integer with bits in first..last that `fits`, from the top bit."""

  def settle_bit(i, found):
    candidate = found | (jnp.int32(1) << (first - i))
    return jnp.where(fits(candidate), candidate, found)

  return lax.fori_loop(0, first - last + 1, settle_bit, jnp.int32(0))


def _row_kernel(x_ref, index_ref, y_ref, *, k, lowest_bit, interpret):
  row = lax.axis_index('row')
  x = _load(x_ref, row, interpret)
  words = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
  bits = words & jnp.int32(0x7FFFFFFF)

  def count(chosen):
    return jnp.sum(chosen.astype(jnp.int32))

  threshold = _search(30, lowest_bit, lambda c: count(bits >= c) >= k)
  room = k - count(bits > threshold)
  index = _load(index_ref, slice(None), interpret)
  tied = bits == threshold
  # Where all ties fit, as nearly always, there is nothing to search for.
  n_bits = x_ref.shape[1].bit_length()

  def bound_bit(i, bound):
    candidate = bound | (jnp.int32(1) << (n_bits - 1 - i))
    below = count(tied & (index < candidate))
    return jnp.where(below <= room, candidate, bound)

  fits = count(tied) <= room
  bound = lax.fori_loop(0, jnp.where(fits, 0, n_bits), bound_bit, jnp.int32(0))
  bound = jnp.where(fits, x_ref.shape[1], bound)
  keep = (bits > threshold) | (tied & (index < bound))
  # A kept zero is written as -0, which tells it from those dropped.
  kept = jnp.where(words == 0, jnp.int32(-(2**31)), words)
  words = jnp.where(keep, kept, jnp.zeros_like(words))
  y_ref[row] = lax.bitcast_convert_type(words, jnp.float32).astype(y_ref.dtype)


def abs_topk_rows(
  x: Float[Array, 'rows width'],
  k: int,
  interpret: Any = None,
  variant: str = ROW_VARIANT,
) -> Float[Array, 'rows width']:
  """AbsTopK of every row; zeros that are kept come out as -0.

  Args:
    x: float32, bfloat16 or float16; no NaN; width at most WIDEST_ROW.
    k: entries kept per row, in [1, width]; ties go to the lowest indices.
    interpret: None for a GPU, or `compat.gpu_interpreter()`.
    variant: of ROW_VARIANTS; 'block' in the place of others if a row is too
      wide for a warp.
  """
  rows, width = x.shape
  warps = ROW_VARIANTS[variant]
  if warps and width <= topk_warps.WIDEST_ROW[x.dtype.itemsize]:
    return topk_warps.abs_topk_rows(x, k, interpret is not None, warps)
  padded = jnp.pad(x, ((0, 0), (0, -width % _THREADS)))
  # A narrow float becomes a float32 whose last bits are all zero.
  lowest_bit = {'bfloat16': 16, 'float16': 13}.get(x.dtype.name, 0)
  kernel = compat.gpu_kernel(
    functools.partial(
      _row_kernel, k=k, lowest_bit=lowest_bit, interpret=interpret
    ),
    out_type=jax.ShapeDtypeStruct(padded.shape, padded.dtype),
    grid=(rows,),
    grid_names=('row',),
    params=_params(),
    interpret=interpret,
  )
  index = jnp.arange(padded.shape[1], dtype=jnp.int32)
  return kernel(padded, index)[:, :width]


def _count_kernel(words_ref, pivots_ref, counts_ref, *, blocks, interpret):
  block = lax.axis_index('block')
  pivots = [pivots_ref[i] for i in range(pivots_ref.shape[0])]

  def at_least(tile):
    words = _load(words_ref, tile, interpret) & jnp.int32(0x7FFFFFFF)
    return tuple((words >= pivot).astype(jnp.int32) for pivot in pivots)

  def add(i, counts):
    more = at_least(block + i * blocks)
    return tuple(a + b for a, b in zip(counts, more, strict=True))

  tiles = words_ref.shape[0]
  own = (tiles - block + blocks - 1) // blocks
  counts = lax.fori_loop(1, own, add, at_least(block))
  for i, count in enumerate(counts):
    counts_ref[block, i] = jnp.sum(count)


def count_at_least(
  words: Int32[Array, '...'],
  pivots: Int32[Array, 'pivots'],
  interpret: Any = None,
  by_warps: bool = True,
) -> Int32[Array, 'pivots']:
  """Counts the words, without their sign bits, at or above each pivot.

  Args:
    words: integers of any shape, at least one; read once.
    pivots: at least 1 each.
    interpret: None for a GPU, or `compat.gpu_interpreter()`.
    by_warps: each warp counts for itself, or a block together.
  """
  if by_warps:
    return topk_warps.count_at_least(words, pivots, interpret is not None)
  flat = words.reshape(-1)
  flat = jnp.pad(flat, (0, -flat.size % _TILE)).reshape(-1, _TILE)
  blocks = min(flat.shape[0], _BLOCKS * machine.multiprocessors())
  if interpret is not None:
    blocks = min(blocks, 3)
  kernel = compat.gpu_kernel(
    functools.partial(_count_kernel, blocks=blocks, interpret=interpret),
    out_type=jax.ShapeDtypeStruct((blocks, pivots.size), jnp.int32),
    grid=(blocks,),
    grid_names=('block',),
    params=_params(),
    interpret=interpret,
  )
  return jnp.sum(kernel(flat, pivots), axis=0)
