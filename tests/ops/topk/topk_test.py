import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sparse_interp.ops.topk import topk

# Values with many ties; zeros of both signs and infinity among them.
VALUES = st.one_of(
  st.floats(-4, 4, width=32),
  st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf]),
)
# Few shapes, so that most of the time is spent on values and not on compiling.
TENSORS = st.sampled_from([(1,), (9,), (5, 7), (2, 3, 4)]).flatmap(
  lambda shape: hnp.arrays(np.float32, shape, elements=VALUES)
)
MATRICES = hnp.arrays(np.float32, (5, 7), elements=VALUES)

keep_mask = jax.jit(topk.keep_mask)
keep_stacked = jax.jit(functools.partial(topk.keep_mask, stacked=True))
keep_mask_along_axis = jax.jit(topk.keep_mask_along_axis, static_argnums=2)


@functools.partial(jax.jit, static_argnums=1)
def abs_topk_and_gradient(x, k, weight):
  y, pull = jax.vjp(lambda v: topk.abs_topk(v, k), x)
  return y, pull(weight)[0]


def _reference(x, count, axis=None):
  """Mask by a stable sort: the largest magnitudes, ties to the low index."""
  if axis is None:
    return _reference(x.reshape(-1), count, 0).reshape(x.shape)
  order = np.argsort(-np.abs(x), axis=axis, kind='stable')
  mask = np.zeros(x.shape, bool)
  chosen = np.take(order, np.arange(count), axis=axis)
  np.put_along_axis(mask, chosen, True, axis)
  return mask


@given(TENSORS, st.data())
def test_mask_of_a_tensor_equals_a_stable_sort(x, data):
  count = data.draw(st.integers(0, x.size))
  mask = np.asarray(keep_mask(jnp.asarray(x), jnp.int32(count)))
  assert mask.sum() == count
  np.testing.assert_array_equal(mask, _reference(x, count))


@given(MATRICES, st.integers(0, 5), st.integers(0, 1))
def test_mask_along_an_axis_equals_a_stable_sort(x, count, axis):
  mask = keep_mask_along_axis(jnp.asarray(x), count, axis)
  np.testing.assert_array_equal(mask, _reference(x, count, axis))


@given(MATRICES, st.sampled_from([1, 3, 7]))
def test_abs_topk_keeps_values_and_gradient_of_the_k_largest(x, k):
  keep = _reference(x, k, -1)
  weight = np.arange(1, x.size + 1, dtype=np.float32).reshape(x.shape)
  y, gradient = abs_topk_and_gradient(jnp.asarray(x), k, jnp.asarray(weight))
  np.testing.assert_array_equal(y, np.where(keep, x, 0))
  np.testing.assert_array_equal(gradient, np.where(keep, weight, 0))


@pytest.mark.slow
@pytest.mark.parametrize('width', [31, 32, 130, 40000])
def test_rows_of_any_width_are_searched_exactly(width):
  x = np.random.default_rng(width).standard_normal((3, width), np.float32)
  for k in (1, width // 4, width):
    np.testing.assert_array_equal(
      topk.abs_topk(jnp.asarray(x), k), np.where(_reference(x, k, -1), x, 0)
    )


def test_threshold_is_the_kth_largest_magnitude():
  x = np.random.default_rng(0).standard_normal((7, 11), np.float32)
  ordered = np.sort(np.abs(x).ravel())[::-1]
  for count in (1, 20, 77):
    found = topk.kth_largest_magnitude(jnp.asarray(x), count)
    assert float(found) == ordered[count - 1]


def test_narrow_floats_are_widened_exactly():
  x = jnp.asarray([1.0, -1.0078125, 0.5, 2.0], jnp.bfloat16)
  kept = jnp.asarray([0.0, -1.0078125, 0.0, 2.0], jnp.bfloat16)
  np.testing.assert_array_equal(topk.abs_topk(x, 2), kept)


def test_mask_of_a_sharded_tensor_is_the_same_and_is_not_gathered():
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  x = np.round(np.random.default_rng(1).standard_normal((64, 24)) * 4) / 4
  x = x.astype(np.float32)
  sharded = jax.device_put(x, NamedSharding(mesh, P('d', None)))
  compiled = keep_mask.lower(sharded, jnp.int32(300)).compile()
  mask = compiled(sharded, jnp.int32(300))
  np.testing.assert_array_equal(mask, _reference(x, 300))
  assert 'all-gather' not in compiled.as_text()


@pytest.mark.parametrize('k', [1, 3, 7])
def test_ties_and_guesses_far_off_on_a_cpu(k):
  # The search of a row begins at the threshold of the one before.
  rng = np.random.default_rng(0)
  x = rng.integers(-9, 10, (3, 64, 8)).astype(np.float32)
  x *= np.float32(10.0) ** rng.integers(-38, 38, (3, 64, 1))
  x[:, ::7] = 0
  wanted = np.where(_reference(x, k, -1), x, 0)
  for batch in (x, x[0, :1], x[:, :1], x[:0]):
    kept = topk.abs_topk(jnp.asarray(batch), k, 'cpu')
    np.testing.assert_array_equal(
      kept,
      wanted[: len(batch), : batch.shape[-2]]
      if batch.ndim == 3
      else wanted[0, :1],
    )


def test_rows_on_several_devices_are_not_gathered_for_the_kernel():
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  x = np.random.default_rng(1).standard_normal((16, 3, 24), np.float32)
  sharded = jax.device_put(x, NamedSharding(mesh, P('d')))
  run = jax.jit(lambda x: topk.abs_topk(x, 5, 'cpu'))
  compiled = run.lower(sharded).compile()
  wanted = np.where(_reference(x, 5, -1), x, 0)
  np.testing.assert_array_equal(compiled(sharded), wanted)
  text = compiled.as_text()
  assert 'sparse_interp.abs_topk_of_rows' in text
  assert 'all-gather' not in text


@pytest.mark.parametrize('shape', [(3, 200, 90), (2, 128, 130)])
@pytest.mark.parametrize('count', [1, 700, 16640])
def test_stacked_matrices_are_each_searched_exactly(shape, count):
  # Large enough for the search by halves; small integers, so that ties abound.
  rng = np.random.default_rng(0)
  few, many = rng.integers(-9, 10, shape), rng.standard_normal(shape)
  for x in (few, many, few.astype(np.float32) * np.float32(2e-38)):
    x = x.astype(np.float32)
    masks = keep_stacked(jnp.asarray(x), jnp.int32(count))
    for mask, matrix in zip(masks, x, strict=True):
      np.testing.assert_array_equal(mask, _reference(matrix, count))


def test_a_large_sharded_matrix_is_searched_by_halves_and_not_gathered():
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  x = np.random.default_rng(1).integers(-99, 99, (256, 128)).astype(np.float32)
  sharded = jax.device_put(x, NamedSharding(mesh, P('d', None)))
  compiled = keep_mask.lower(sharded, jnp.int32(3000)).compile()
  mask = compiled(sharded, jnp.int32(3000))
  np.testing.assert_array_equal(mask, _reference(x, 3000))
  text = compiled.as_text()
  assert 's16[' in text
  assert 'all-gather' not in text


@pytest.mark.parametrize('count', [1, 4, 8])
def test_a_few_along_an_axis_are_found_by_maxima(count):
  x = np.random.default_rng(2).integers(-5, 6, (40, 30)).astype(np.float32)
  for axis in (0, 1):
    mask = jax.jit(lambda x, a=axis: topk.keep_mask_along_axis(x, count, a))(x)
    np.testing.assert_array_equal(mask, _reference(x, count, axis))
