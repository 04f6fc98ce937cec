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
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Int32

from sparse_interp.ops.cpu_kernels import proving
from sparse_interp.ops.topk import topk_bits, topk_search
from sparse_interp.ops.tuned import choice

# How the projection searches: bits of the threshold that one pass over the
# array settles, and whether the passes are a loop.
PROJECTIONS = {
  'loop_of_3_bits': (3, True),
  'loop_of_4_bits': (4, True),
  'passes_of_3_bits': (3, False),
  'passes_of_4_bits': (4, False),
}
PROJECTION = 'loop_of_3_bits'
_THRESHOLD_BITS = 31
_LARGEST = 2**31 - 1

_WIDEST_ON_A_CPU = 2**24


def _kernel(implementation: str) -> tuple[Any, Any]:
  """(module with the kernels, what its functions take as `interpret`)."""
  # Pallas for accelerators takes a second to import, and CPUs do without.
  from sparse_interp.ops import compat

  interpreted = implementation.endswith('_interpreted')
  if implementation.startswith('tpu'):
    from sparse_interp.ops.topk import topk_tpu

    return topk_tpu, (
      compat.tpu_interpreter(checked=False) if interpreted else False
    )
  from sparse_interp.ops.topk import topk_gpu

  return topk_gpu, compat.gpu_interpreter() if interpreted else None


def widest_row(implementation: str) -> int:
  """Width up to which `abs_topk` has a kernel."""
  if implementation == 'cpu':
    return _WIDEST_ON_A_CPU
  return _kernel(implementation)[0].WIDEST_ROW


def _letters(count: int) -> str:
  return ' '.join(f'a{i}' for i in range(count))


def _load_rows():
  from sparse_interp.ops.topk import topk_cpu

  return topk_cpu.abs_topk_of_rows, topk_cpu.abs_topk_rows


def _plain_rows(x, k):
  """What `topk_cpu.abs_topk_rows` does, in plain jax."""
  keep = topk_search.keep(x, k, (1,), halves=True)
  kept = jnp.where(topk_bits.magnitude_bits(x) == 0, jnp.float32(-0.0), x)
  return jnp.where(keep, kept, 0)


def _cases_of_rows():
  """Rows of ties, of zeros of both signs, of what is large or not finite."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(300, 517)).astype(np.float32)
  x[:50] = np.round(x[:50])
  x[0], x[1] = -2, 0
  x[2, ::2], x[2, ::4] = 0, -0.0
  x[3, ::9], x[4] = -np.inf, x[4] * 1e30
  return [(x, 101)]


ROWS = proving.NativeKernel(
  'abs_topk_of_rows', _load_rows, _plain_rows, _cases_of_rows
)
_rows_on_a_cpu = proving.either(ROWS)


@functools.partial(custom_partitioning, static_argnums=(1, 2))
def _rows(x, k, implementation):
  rows = x.reshape(-1, x.shape[-1])
  if implementation == 'cpu':
    kept = _rows_on_a_cpu(rows.astype(jnp.float32), k).astype(x.dtype)
    return kept.reshape(x.shape)
  kernels, interpret = _kernel(implementation)
  variant = {}
  if implementation == 'gpu':
    best = best_for_rows(rows.shape, rows.dtype.name)
    variant = {'variant': best or kernels.ROW_VARIANT}
  return kernels.abs_topk_rows(rows, k, interpret, **variant).reshape(x.shape)


def best_for_rows(shape: tuple[int, ...], dtype: str) -> str | None:
  """The variant of AbsTopK known to be fastest on the GPU at hand, if any.

  What is known of float32 holds for narrower floats: plain jax widens them and
  does the same, a kernel has fewer bits to search.
  """
  *batch, width = shape
  size = {'rows': max(1, math.prod(batch)), 'width': width}
  best = choice.best('abs_topk', dtype=dtype, **size)
  return best or choice.best('abs_topk', dtype='float32', **size)


def _partition_rows(k, implementation, mesh, arguments, result):
  del result
  spec = tuple(arguments[0].sharding.spec)
  spec = (*spec, *[None] * (len(arguments[0].shape) - len(spec)))[:-1]
  sharding = NamedSharding(mesh, PartitionSpec(*spec, None))
  return mesh, lambda x: _rows.fun(x, k, implementation), sharding, (sharding,)


def _rule_of_rows(k, implementation, mesh, arguments, results):
  del k, implementation, mesh, results
  batch = _letters(len(arguments[0].shape) - 1)
  factors = {'need_replication_factors': ('w',)}
  return f'{batch} w -> {batch} w', factors


_rows.def_partition(partition=_partition_rows, sharding_rule=_rule_of_rows)


@functools.partial(custom_partitioning, static_argnums=(2,))
def _counts(words, pivots, implementation):
  kernels, interpret = _kernel(implementation)
  return kernels.count_at_least(words, pivots, interpret)


def _partition_counts(implementation, mesh, arguments, result):
  del result
  words, pivots = arguments
  names = []
  for entry in words.sharding.spec:
    names.extend(entry if isinstance(entry, tuple) else [entry])
  names = tuple(name for name in names if name is not None)

  def count(words, pivots):
    own = _counts.fun(words, pivots, implementation)
    return lax.psum(own, names) if names else own

  everywhere = NamedSharding(mesh, PartitionSpec())
  del pivots
  return mesh, count, everywhere, (words.sharding, everywhere)


def _rule_of_counts(implementation, mesh, arguments, results):
  del implementation, mesh, results
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
  x: Float[Array, '*batch width'], k: int, implementation: str
) -> Float[Array, '*batch width']:
  """AbsTopK by a kernel; zeros that are kept come out as -0.

  Args:
    x: float32 or narrower, its last axis at most `widest_row(implementation)`.
    k: entries kept per vector, in [1, width].
    implementation: of `topk.IMPLEMENTATIONS`, all but 'reference'.
  """

  if math.prod(x.shape) == 0:
    return x
  if implementation == 'gpu_interpreted':
    return _rows.fun(x, k, implementation)

  @custom_vmap
  def rows(x):
    return _rows(x, k, implementation)

  @rows.def_vmap
  def _(axis_size, batched, x):
    del axis_size, batched
    return rows(x), True

  return rows(x)


def count_at_least(
  words: Int32[Array, '...'],
  pivots: Int32[Array, 'pivots'],
  implementation: str,
) -> Int32[Array, 'pivots']:
  """Counts the words, without their sign bits, at or above each pivot.

  Args:
    words: of any shape, at least one, possibly sharded.
    pivots: at least 1 each.
    implementation: as in `abs_topk`, but not 'cpu'.
  """

  if implementation == 'gpu_interpreted':
    return _counts.fun(words, pivots, implementation)

  @custom_vmap
  def count(words, pivots):
    return _counts(words, pivots, implementation)

  @count.def_vmap
  def _(axis_size, batched, words, pivots):
    operands = [
      a if is_batched else jnp.broadcast_to(a, (axis_size, *a.shape))
      for a, is_batched in zip((words, pivots), batched, strict=True)
    ]
    return lax.map(lambda pair: count(*pair), tuple(operands)), True

  return count(words, pivots)


def kth_largest(
  words: Int32[Array, '...'],
  count: Int[Array, ''],
  implementation: str,
  variant: str = PROJECTION,
) -> Int32[Array, '']:
  """The `count`-th largest word, without its sign bit, of the whole array.

  Args:
    words: of any shape, possibly sharded.
    count: in [1, words.size].
    implementation: as in `abs_topk`.
    variant: of PROJECTIONS.
  """
  bits, is_loop = PROJECTIONS[variant]
  passes = -(-_THRESHOLD_BITS // bits)
  digits = jnp.arange(1, 2**bits, dtype=jnp.int32)

  def settle(i, threshold):
    shift = bits * (passes - 1 - i)
    # The first digit has fewer bits before the sign.
    valid = digits <= (_LARGEST >> shift)
    candidates = threshold | (digits << shift)
    candidates = jnp.where(valid, candidates, _LARGEST)
    enough = count_at_least(words, candidates, implementation) >= count
    return threshold | (jnp.sum(enough & valid, dtype=jnp.int32) << shift)

  start = jnp.int32(0)
  return lax.fori_loop(0, passes, settle, start, unroll=not is_loop)


def keep_mask(
  x: Float[Array, '...'],
  count: Int[Array, ''],
  implementation: str,
  variant: str = PROJECTION,
) -> Bool[Array, '...']:
  """Marks exactly `count` entries of largest magnitude; see `topk.keep_mask`.

  Ties are broken by a second search, for the lowest indices among them, only
  where there are too many.
  """
  bits = topk_bits.magnitude_bits(topk_bits.written_down(x))
  wanted = jnp.maximum(count, 1)
  threshold = kth_largest(bits, wanted, implementation, variant)
  pivots = jnp.stack([jnp.maximum(threshold, 1), threshold + 1])
  kept, above = count_at_least(bits, pivots, implementation)

  def drop_late_ties():
    index = topk_search.flat_index(x.shape, tuple(range(x.ndim)))
    earliness = jnp.where(bits == threshold, x.size - index, 0)
    bound = kth_largest(earliness, wanted - above, implementation)
    return (bits > threshold) | (earliness >= bound)

  keep = lax.cond(
    (kept == wanted) & (threshold > 0),
    lambda: bits >= threshold,
    drop_late_ties,
  )
  return keep & (count > 0)
