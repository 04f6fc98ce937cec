import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_interp.ops.row_sparse import row_sparse
from tests.ops.row_sparse.sparse_matrices import KINDS, check, make, results


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('implementation', ['reference', 'cpu'])
def test_product_and_gradients_are_those_of_the_dense_matrix(
  kind, implementation
):
  x = np.random.default_rng(2).standard_normal((3, 5, 13), np.float32)
  check(x, make(kind, 13, 7), implementation)


@pytest.mark.parametrize('implementation', ['reference', 'cpu'])
def test_narrow_activations_have_wide_sums(implementation):
  x = np.random.default_rng(3).standard_normal((9, 200), np.float32)
  # 1 / 128 is half a unit of bfloat16's last place.
  check(
    jnp.asarray(x, jnp.bfloat16),
    make('random', 200, 6),
    implementation,
    1 / 128,
  )


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('implementation', ['reference', 'cpu'])
def test_feature_major_activations_give_the_same(kind, implementation):
  rng = np.random.default_rng(6)
  matrix = make(kind, 13, 70)
  w = row_sparse.from_dense(matrix)
  x, dy = rng.standard_normal((45, 13)), rng.standard_normal((45, 70))

  def product(x_t, value):
    replaced = row_sparse.RowSparse(value, w.layout, w.shape)
    return row_sparse.feature_major_matmul(x_t, replaced, implementation)

  x_t, dy_t = (jnp.asarray(a.T, jnp.float32) for a in (x, dy))
  y_t, pull = jax.vjp(product, x_t, w.value)
  outputs, inputs = np.nonzero(matrix.T)
  np.testing.assert_allclose(y_t.T, x @ matrix, atol=2e-5)
  dx_t, dvalue = pull(dy_t)
  np.testing.assert_allclose(dx_t.T, dy @ matrix.T, atol=2e-5)
  np.testing.assert_allclose(dvalue, (x.T @ dy)[inputs, outputs], atol=2e-5)


@pytest.mark.slow
@given(
  st.sampled_from([(1, 1), (1, 9), (6, 1), (17, 33)]), st.integers(0, 10**6)
)
def test_both_orders_hold_the_whole_matrix(shape, seed):
  matrix = make('random', *shape, seed)
  w = row_sparse.from_dense(matrix)
  value = np.asarray(w.value)
  assert (w.shape, value.size) == (shape, np.count_nonzero(matrix))
  # The second order is that of np.nonzero, in which gates on edges stand.
  order = np.asarray(w.layout.order)
  np.testing.assert_array_equal(value[order], matrix[np.nonzero(matrix)])
  for rows, own, wanted in (
    (w.layout.by_output, value, matrix.T),
    (w.layout.by_input, value[order], matrix),
  ):
    start = np.asarray(rows.start)
    found = np.zeros_like(wanted)
    found[np.repeat(np.arange(len(wanted)), np.diff(start)), rows.index] = own
    np.testing.assert_array_equal(found, wanted)


def test_the_way_back_to_the_matrix():
  matrix = make('random', 13, 7)
  w = row_sparse.from_dense(matrix)
  np.testing.assert_array_equal(row_sparse.to_dense(w), matrix)
  assert w.density == np.count_nonzero(matrix) / 91


def test_many_tokens_and_weights_take_both_ways_to_sample():
  rng = np.random.default_rng(4)
  for density in (1 / 16, 1 / 100):  # of the whole gradient, in chunks
    matrix = make('all', 90, 70) * (rng.random((90, 70)) < density)
    check(rng.standard_normal((128, 90), np.float32), matrix, 'cpu')


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['reference', 'cpu'])
def test_batches_of_activations_and_of_weights(implementation):
  matrix = make('random', 13, 7)
  w = row_sparse.from_dense(matrix)
  x = np.random.default_rng(5).standard_normal((4, 5, 13), np.float32)
  scales = np.arange(1, 5, dtype=np.float32)

  def loss(x, scale):
    scaled = row_sparse.RowSparse(w.value * scale, w.layout, w.shape)
    y = row_sparse.row_sparse_matmul(x, scaled, implementation)
    return jnp.sum(y**2)

  def dense_loss(x, scale):
    return jnp.sum((x @ (matrix * scale)) ** 2)

  for axes in ((0, None), (None, 0), (0, 0)):
    arguments = (
      jnp.asarray(x if axes[0] == 0 else x[0]),
      jnp.asarray(scales if axes[1] == 0 else 2.0),
    )
    found, wanted = (
      jax.vmap(jax.grad(f, argnums=(0, 1)), axes)(*arguments)
      for f in (loss, dense_loss)
    )
    for one, other in zip(found, wanted, strict=True):
      np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-4)


def test_gradients_take_no_array_as_large_as_the_matrix():
  """At 1 in 100 a step must not pay for what is not there."""
  w = row_sparse.from_dense(make('last weight', 512, 640))
  x = jax.ShapeDtypeStruct((32, 512), jnp.float32)
  dy = jax.ShapeDtypeStruct((32, 640), jnp.float32)
  text = results.lower(x, w, dy, 'cpu').compile().as_text()
  assert '512,640' not in text
  assert '640,512' not in text
  # Forward and dx, then the gradient of the weights: kernels, no gathers.
  assert text.count('custom_call_target="sparse_interp.row_sparse_pro') == 2
  assert text.count('custom_call_target="sparse_interp.row_sparse_sam') == 1


def test_what_no_weight_reads_changes_nothing():
  matrix = make('one input', 13, 7)
  x = np.full((4, 13), np.nan, np.float32)
  x[:, 13 // 2] = 1
  w = row_sparse.from_dense(matrix)
  for implementation in ('reference', 'cpu'):
    y = row_sparse.row_sparse_matmul(jnp.asarray(x), w, implementation)
    np.testing.assert_allclose(y, np.tile(matrix[13 // 2], (4, 1)))


def test_refusals_name_what_is_wrong():
  w = row_sparse.from_dense(make('random', 13, 7))
  with pytest.raises(ValueError) as error:
    row_sparse.row_sparse_matmul(jnp.zeros((2, 7)), w)
  assert 'w has inputs (13), got 7' in str(error.value)
  with pytest.raises(ValueError) as error:
    row_sparse.row_sparse_matmul(jnp.zeros((2, 13)), w, 'fast')
  assert (
    'implementation must be one of auto, reference, cpu, gpu, '
    'gpu_interpreted, got' in str(error.value)
  )
