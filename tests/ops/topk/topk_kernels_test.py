"""The kernels of top-k on a CPU: interpreted, and lowered for their devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sparse_interp.ops import compat
from sparse_interp.ops.topk import (
  topk,
  topk_gpu,
  topk_kernels,
  topk_tpu,
  topk_warps,
)

INTERPRETED = ('tpu_interpreted', 'gpu_interpreted')
COMPILED = (('tpu', 'tpu_custom_call'), ('cuda', 'mosaic_gpu_v2'))


def rows_with_ties(rows, width, dtype='float32'):
  """Random rows; the first all equal, the second half zeros of both signs."""
  rng = np.random.default_rng(rows * width)
  x = np.round(rng.standard_normal((rows, width)) * 8) / 8
  x[0] = -2.0
  if rows > 1:
    x[1, ::2], x[1, ::4] = 0.0, -0.0
  return jnp.asarray(x, dtype)


def mask_by_sorting(x, k):
  """The k largest magnitudes of every row, ties to the lowest index."""
  order = np.argsort(-np.abs(x), axis=-1, kind='stable')[:, :k]
  mask = np.zeros(x.shape, bool)
  np.put_along_axis(mask, order, True, -1)
  return mask


@functools.partial(jax.jit, static_argnums=(1, 2))
def value_and_pullback(x, k, implementation):
  y, pull = jax.vjp(lambda v: topk.abs_topk(v, k, implementation), x)
  weight = jnp.arange(1, x.size + 1, dtype=x.dtype).reshape(x.shape)
  return y, pull(weight)[0], weight


@pytest.mark.parametrize(
  ('implementation', 'rows', 'width', 'k', 'dtype'),
  [
    ('tpu_interpreted', 1, 5, 2, 'float32'),
    ('tpu_interpreted', 3, 130, 100, 'float32'),
    ('tpu_interpreted', 5, 96, 31, 'bfloat16'),
    ('tpu_interpreted', 2, 16, 16, 'float32'),
    ('tpu_interpreted', 2, 16, 0, 'float32'),
    ('gpu_interpreted', 1, 5, 2, 'float32'),
    pytest.param(
      *('tpu_interpreted', 2, 64, 9, 'float16'), marks=pytest.mark.slow
    ),
    pytest.param(
      *('gpu_interpreted', 3, 130, 100, 'float32'), marks=pytest.mark.slow
    ),
    pytest.param(
      *('gpu_interpreted', 2, 96, 31, 'bfloat16'), marks=pytest.mark.slow
    ),
  ],
)
def test_kernel_keeps_value_and_gradient_of_the_k_largest(
  implementation, rows, width, k, dtype
):
  x = rows_with_ties(rows, width, dtype)
  keep = mask_by_sorting(np.asarray(x, np.float32), k)
  y, gradient, weight = value_and_pullback(x, k, implementation)
  assert y.dtype == x.dtype
  np.testing.assert_array_equal(y, np.where(keep, x, 0))
  # Zeros that are kept have a gradient, those that are dropped have none.
  np.testing.assert_array_equal(gradient, np.where(keep, weight, 0))


@pytest.mark.slow
def test_rows_of_a_kernel_beyond_one_tile_under_checked_memory():
  # Memory starts as NaN: what is not written, or read beyond the edge, shows.
  x = rows_with_ties(37, 9000)
  y = topk_tpu.abs_topk_rows(x, 2000, compat.tpu_interpreter())
  keep = mask_by_sorting(np.asarray(x), 2000)
  np.testing.assert_array_equal(y, np.where(keep, x, 0))


def test_rows_of_a_kernel_under_vmap():
  x = rows_with_ties(6, 24).reshape(2, 3, 24)
  ours = jax.vmap(lambda v: topk.abs_topk(v, 5, 'tpu_interpreted'), in_axes=1)(
    x
  )
  reference = topk.abs_topk(x, 5, 'reference').swapaxes(0, 1)
  np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize(
  ('rows', 'width', 'k', 'dtype', 'variant'),
  [
    (1, 5, 2, 'float32', 'warps4'),
    (9, 300, 31, 'bfloat16', 'warps8'),
    (3, 130, 100, 'float32', 'warps12'),
    (2, 16, 16, 'float16', 'warps4'),
    (5, 256, 1, 'float32', 'warps4'),
    pytest.param(
      *(13, 3000, 700, 'float32', 'warps12'), marks=pytest.mark.slow
    ),
  ],
)
def test_warps_keep_the_k_largest_and_mark_zeros(
  rows, width, k, dtype, variant
):
  x = rows_with_ties(rows, width, dtype)
  keep = mask_by_sorting(np.asarray(x, np.float32), k)
  y = topk_gpu.abs_topk_rows(x, k, compat.gpu_interpreter(), variant)
  np.testing.assert_array_equal(y, np.where(keep, x, 0))
  word = {2: np.int16, 4: np.int32}[x.dtype.itemsize]
  np.testing.assert_array_equal(np.asarray(y).view(word) != 0, keep)


def test_warps_search_magnitudes_of_any_size():
  rng = np.random.default_rng(5)
  x = rng.standard_normal((5, 200)).astype(np.float32)
  x *= np.array([1e-42, 1e-30, 1, 1e30, 1], np.float32)[:, None]
  x[1, ::7] = np.inf
  x[4, 1:] = 0
  keep = mask_by_sorting(x, 40)
  y = topk_warps.abs_topk_rows(jnp.asarray(x), 40, interpret=True)
  np.testing.assert_array_equal(y, np.where(keep, x, 0))


@pytest.mark.parametrize('shape', [(), (3,), (5, 421), (3, 2777)])
def test_warps_count_every_word_once_and_no_sign(shape):
  rng = np.random.default_rng(len(shape))
  words = rng.integers(-(2**31), 2**31 - 1, shape, np.int32)
  pivots = np.array([1, 2**29, 2**30 + 12345, 2**31 - 1], np.int32)
  counts = topk_warps.count_at_least(
    jnp.asarray(words), jnp.asarray(pivots), interpret=True
  )
  expected = [((words & 0x7FFFFFFF) >= pivot).sum() for pivot in pivots]
  np.testing.assert_array_equal(counts, expected)


@pytest.mark.slow
@pytest.mark.parametrize('variant', topk_kernels.PROJECTIONS)
def test_every_variant_of_the_projection(variant):
  x = np.asarray(rows_with_ties(7, 30))
  for count in (0, 31, 100, 210):
    mask = topk_kernels.keep_mask(
      jnp.asarray(x), jnp.int32(count), 'gpu_interpreted', variant
    )
    expected = mask_by_sorting(x.reshape(1, -1), count).reshape(x.shape)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize('variant', topk_gpu.ROW_VARIANTS)
def test_every_variant_of_rows_lowers_for_cuda(variant):
  for width, dtype in ((300, 'float32'), (512, 'bfloat16')):
    x = jax.ShapeDtypeStruct((37, width), dtype)
    text = compat.lower_for(
      'cuda', lambda x: topk_gpu.abs_topk_rows(x, 9, variant=variant), x
    )
    assert text.count('mosaic_gpu_v2') == 1


@pytest.mark.parametrize(
  'variant',
  [
    'loop_of_4_bits',
    *[
      pytest.param(name, marks=pytest.mark.slow)
      for name in topk_kernels.PROJECTIONS
      if name != 'loop_of_4_bits'
    ],
  ],
)
def test_every_variant_of_the_projection_lowers_for_cuda(variant):
  x = jax.ShapeDtypeStruct((300, 701), 'float32')
  count = jax.ShapeDtypeStruct((), 'int32')
  text = compat.lower_for(
    'cuda', lambda x, n: topk_kernels.keep_mask(x, n, 'gpu', variant), x, count
  )
  assert 'mosaic_gpu_v2' in text


TPU = (topk_tpu.count_at_least, compat.tpu_interpreter())
GPU = (
  functools.partial(topk_gpu.count_at_least, by_warps=False),
  compat.gpu_interpreter(),
)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('count', 'interpret', 'shape'),
  [
    (*TPU, ()),
    (*TPU, (270, 600)),
    (*TPU, (2, 3, 140)),
    # More tiles than blocks, the last one not full.
    (*GPU, (5, 420)),
    (*GPU, ()),
  ],
)
def test_counting_sees_every_word_once_and_no_sign(count, interpret, shape):
  rng = np.random.default_rng(len(shape))
  words = rng.integers(-(2**31), 2**31 - 1, shape, np.int32)
  pivots = np.array([1, 2**29, 2**30 + 12345, 2**31 - 1], np.int32)
  counts = jax.jit(functools.partial(count, interpret=interpret))(words, pivots)
  magnitudes = words & 0x7FFFFFFF
  expected = [(magnitudes >= pivot).sum() for pivot in pivots]
  np.testing.assert_array_equal(counts, expected)


@pytest.mark.slow
@pytest.mark.parametrize('implementation', INTERPRETED)
def test_projection_keeps_exactly_k_with_ties_by_index(implementation):
  x = np.asarray(rows_with_ties(7, 30))
  keep_mask = jax.jit(
    functools.partial(topk.keep_mask, implementation=implementation)
  )
  for count in (0, 31, 100, 210):
    mask = keep_mask(jnp.asarray(x), jnp.int32(count))
    expected = mask_by_sorting(x.reshape(1, -1), count).reshape(x.shape)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.slow
@pytest.mark.parametrize('spec', [P('d', None), P(None, 'd'), P()])
def test_projection_by_a_kernel_of_sharded_weights(spec):
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  x = np.asarray(rows_with_ties(16, 24))
  sharded = jax.device_put(x, NamedSharding(mesh, spec))
  keep_mask = jax.jit(
    functools.partial(topk.keep_mask, implementation='tpu_interpreted')
  )
  compiled = keep_mask.lower(sharded, jnp.int32(300)).compile()
  mask = compiled(sharded, jnp.int32(300))
  expected = mask_by_sorting(x.reshape(1, -1), 300).reshape(x.shape)
  np.testing.assert_array_equal(mask, expected)
  text = compiled.as_text()
  assert 'all-gather' not in text
  assert ('all-reduce' in text) == bool(tuple(spec))


def test_rows_of_a_kernel_stay_where_they_are():
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  x = rows_with_ties(16, 24)
  sharded = jax.device_put(x, NamedSharding(mesh, P('d', None)))
  rows = jax.jit(lambda v: topk.abs_topk(v, 6, 'tpu_interpreted'))
  compiled = rows.lower(sharded).compile()
  y = compiled(sharded)
  np.testing.assert_array_equal(y, topk.abs_topk(x, 6, 'reference'))
  assert 'all-gather' not in compiled.as_text()
  assert len({str(s.index) for s in y.addressable_shards}) == 8


@pytest.mark.parametrize(('platform', 'call'), COMPILED)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_rows_of_a_kernel_lower_for_their_device(platform, call, dtype):
  implementation = {'tpu': 'tpu', 'cuda': 'gpu'}[platform]
  x = jax.ShapeDtypeStruct((2, 35, 512), dtype)

  def loss(x):
    return topk.abs_topk(x, 128, implementation).astype('float32').sum()

  assert call in compat.lower_for(platform, jax.grad(loss), x)


@pytest.mark.parametrize(('platform', 'call'), COMPILED)
def test_projection_lowers_for_its_device(platform, call):
  implementation = {'tpu': 'tpu', 'cuda': 'gpu'}[platform]
  x = jax.ShapeDtypeStruct((300, 700), 'float32')
  keep_mask = functools.partial(topk.keep_mask, implementation=implementation)
  count = jax.ShapeDtypeStruct((), 'int32')
  assert call in compat.lower_for(platform, keep_mask, x, count)


def test_unknown_implementations_are_errors():
  with pytest.raises(ValueError, match='implementation must be one of'):
    topk.abs_topk(jnp.ones((2, 4)), 2, 'cuda')
