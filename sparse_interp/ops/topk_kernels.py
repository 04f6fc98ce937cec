"""The kernels of top-k, shared out over devices.

A kernel sees one device. Here the compiler is told how an array that is split
over several goes through: rows of AbsTopK are independent, and counts of a
projection add up, which costs one reduction of a few integers per pass. The
array itself is never gathered. The interpreter for GPUs keeps memory on the
host and knows one device only.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Int32

from sparse_interp.ops import (
  compat,
  topk_cpu,
  topk_gpu,
  topk_search,
  topk_tpu,
)

# Bits of the threshold that one pass over the array settles.
_BITS = 3
_PASSES = 11  # 31 bits
_LARGEST = 2**31 - 1


def _kernel(impl: str) -> tuple[Any, Any]:
  """(module with the kernels, what its functions take as `interpret`)."""
  return {
    'cpu': (topk_cpu, None),
    'mosaic_tpu': (topk_tpu, False),
    'mosaic_gpu': (topk_gpu, None),
    'interpret_tpu': (topk_tpu, compat.tpu_interpreter(checked=False)),
    'interpret_gpu': (topk_gpu, compat.gpu_interpreter()),
  }[impl]


def widest_row(impl: str) -> int:
  """Width up to which `abs_topk` has a kernel."""
  return _kernel(impl)[0].WIDEST_ROW


def _letters(count: int) -> str:
  return ' '.join(f'a{i}' for i in range(count))


@functools.partial(custom_partitioning, static_argnums=(1, 2))
def _rows(x, k, impl):
  kernels, interpret = _kernel(impl)
  rows = x.reshape(-1, x.shape[-1])
  return kernels.abs_topk_rows(rows, k, interpret).reshape(x.shape)


def _partition_rows(k, impl, mesh, arguments, result):
  del result
  spec = tuple(arguments[0].sharding.spec)
  spec = (*spec, *[None] * (len(arguments[0].shape) - len(spec)))[:-1]
  sharding = NamedSharding(mesh, PartitionSpec(*spec, None))
  return mesh, lambda x: _rows.fun(x, k, impl), sharding, (sharding,)


def _rule_of_rows(k, impl, mesh, arguments, results):
  del k, impl, mesh, results
  batch = _letters(len(arguments[0].shape) - 1)
  factors = {'need_replication_factors': ('w',)}
  return f'{batch} w -> {batch} w', factors


_rows.def_partition(partition=_partition_rows, sharding_rule=_rule_of_rows)


@functools.partial(custom_partitioning, static_argnums=(2,))
def _counts(words, pivots, impl):
  kernels, interpret = _kernel(impl)
  return kernels.count_at_least(words, pivots, interpret)


def _partition_counts(impl, mesh, arguments, result):
  del result
  words, pivots = arguments
  names = []
  for entry in words.sharding.spec:
    names.extend(entry if isinstance(entry, tuple) else [entry])
  names = tuple(name for name in names if name is not None)

  def count(words, pivots):
    own = _counts.fun(words, pivots, impl)
    return lax.psum(own, names) if names else own

  everywhere = NamedSharding(mesh, PartitionSpec())
  del pivots
  return mesh, count, everywhere, (words.sharding, everywhere)


def _rule_of_counts(impl, mesh, arguments, results):
  del impl, mesh, results
  axes = _letters(len(arguments[0].shape))
  factors = {
    'reduction_factors': tuple(axes.split()),
    'need_replication_factors': ('p',),
  }
  return f'{axes}, p -> p', factors


_counts.def_partition(
  partition=_partition_counts, sharding_rule=_rule_of_counts
)


def abs_topk(
  x: Float[Array, '*batch width'], k: int, impl: str
) -> Float[Array, '*batch width']:
  """AbsTopK by a kernel; zeros that are kept come out as -0.

  Args:
    x: float32 or narrower, its last axis at most `widest_row(impl)`.
    k: entries kept per vector, in [1, width].
    impl: 'cpu', 'mosaic_tpu', 'mosaic_gpu', 'interpret_tpu' or
      'interpret_gpu'.
  """

  if math.prod(x.shape) == 0:
    return x
  if impl == 'interpret_gpu':
    return _rows.fun(x, k, impl)

  @custom_vmap
  def rows(x):
    return _rows(x, k, impl)

  @rows.def_vmap
  def _(axis_size, batched, x):
    del axis_size, batched
    return rows(x), True

  return rows(x)


def count_at_least(
  words: Int32[Array, '...'], pivots: Int32[Array, 'pivots'], impl: str
) -> Int32[Array, 'pivots']:
  """Counts the words, without their sign bits, at or above each pivot.

  Args:
    words: of any shape, at least one, possibly sharded.
    pivots: at least 1 each.
    impl: as in `abs_topk`, but not 'cpu'.
  """

  if impl == 'interpret_gpu':
    return _counts.fun(words, pivots, impl)

  @custom_vmap
  def count(words, pivots):
    return _counts(words, pivots, impl)

  @count.def_vmap
  def _(axis_size, batched, words, pivots):
    operands = [
      a if is_batched else jnp.broadcast_to(a, (axis_size, *a.shape))
      for a, is_batched in zip((words, pivots), batched, strict=True)
    ]
    return lax.map(lambda pair: count(*pair), tuple(operands)), True

  return count(words, pivots)


def kth_largest(
  words: Int32[Array, '...'], count: Int[Array, ''], impl: str
) -> Int32[Array, '']:
  """The `count`-th largest word, without its sign bit, of the whole array.

  Args:
    words: of any shape, possibly sharded.
    count: in [1, words.size].
    impl: as in `abs_topk`.
  """
  digits = jnp.arange(1, 2**_BITS, dtype=jnp.int32)

  def settle(i, threshold):
    shift = _BITS * (_PASSES - 1 - i)
    # The first digit has but one bit before the sign.
    valid = digits <= (_LARGEST >> shift)
    candidates = threshold | (digits << shift)
    candidates = jnp.where(valid, candidates, _LARGEST)
    enough = count_at_least(words, candidates, impl) >= count
    return threshold | (jnp.sum(enough & valid, dtype=jnp.int32) << shift)

  return lax.fori_loop(0, _PASSES, settle, jnp.int32(0))


def keep_mask(
  x: Float[Array, '...'], count: Int[Array, ''], impl: str
) -> Bool[Array, '...']:
  """Marks exactly `count` entries of largest magnitude; see `topk.keep_mask`.

  Ties are broken by a second search, for the lowest indices among them, only
  where there are too many.
  """
  bits = topk_search.magnitude_bits(topk_search.written_down(x))
  wanted = jnp.maximum(count, 1)
  threshold = kth_largest(bits, wanted, impl)
  pivots = jnp.stack([jnp.maximum(threshold, 1), threshold + 1])
  kept, above = count_at_least(bits, pivots, impl)

  def drop_late_ties():
    index = topk_search.flat_index(x.shape, tuple(range(x.ndim)))
    earliness = jnp.where(bits == threshold, x.size - index, 0)
    bound = kth_largest(earliness, wanted - above, impl)
    return (bits > threshold) | (earliness >= bound)

  keep = lax.cond(
    (kept == wanted) & (threshold > 0),
    lambda: bits >= threshold,
    drop_late_ties,
  )
  return keep & (count > 0)
