"""A layer's product skips empty blocks where that can pay, and only there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops.block_sparse.block_pattern import BlockPattern
from sparse_interp.ops.sparse_linear import sparse_linear

SIZE = 4
KEPT = np.array([[1, 0, 0], [0, 0, 1]])


def problem():
  rng = np.random.default_rng(0)
  entries = np.repeat(np.repeat(KEPT, SIZE, 0), SIZE, 1)[:7, :10]
  kernel = (rng.standard_normal((7, 10)) * entries).astype(np.float32)
  x = rng.standard_normal((2, 3, 7)).astype(np.float32)
  dy = rng.standard_normal((2, 3, 10)).astype(np.float32)
  return x, kernel, entries, dy


@functools.partial(jax.jit, static_argnames=('dense_above', 'gradient'))
def value_and_gradients(x, kernel, dy, dense_above=0.5, gradient='dense'):
  def multiply(x, kernel):
    pattern = BlockPattern(SIZE, dense_above)
    return sparse_linear(x, kernel, pattern, gradient)

  y, pull, share = jax.vjp(multiply, x, kernel, has_aux=True)
  return y, *pull(dy), share


# A third of the blocks is kept: above the first bound, below the second.
@pytest.mark.slow
@pytest.mark.parametrize('gradient', ['dense', 'kept'])
@pytest.mark.parametrize('dense_above', [0.25, 0.5])
def test_it_is_the_dense_product(dense_above, gradient):
  x, kernel, entries, dy = problem()
  y, dx, dw, share = value_and_gradients(x, kernel, dy, dense_above, gradient)
  flat = x.reshape(6, 7), dy.reshape(6, 10)
  wanted = flat[0].T @ flat[1]
  wanted = wanted if gradient == 'dense' else wanted * entries
  np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
  np.testing.assert_allclose(dx, dy @ kernel.T, atol=1e-5)
  np.testing.assert_allclose(dw, wanted, atol=1e-5)
  assert float(share) == pytest.approx(1 / 3)


def test_only_where_it_pays_are_blocks_skipped():
  x, kernel, _, dy = problem()
  kernel[4:] = 0  # all of the second block row
  x[..., 5] = np.inf  # times zero this is NaN, unless it is skipped
  y, *_, share = value_and_gradients(x, kernel, dy)
  assert float(share) == pytest.approx(1 / 6)
  assert np.all(np.isfinite(y))
  y, *_ = value_and_gradients(x, kernel, dy, dense_above=0.1)
  assert not np.any(np.isfinite(y))


def test_masters_in_float32_get_gradients_in_float32():
  x, kernel, _, dy = problem()
  y, dx, dw, _ = value_and_gradients(jnp.asarray(x, jnp.bfloat16), kernel, dy)
  assert (y.dtype, dx.dtype, dw.dtype) == ('float32', 'bfloat16', 'float32')


@pytest.mark.parametrize(
  ('options', 'named'),
  [
    ({'dense_above': 0.0}, 'dense_above'),
    ({'gradient': 'some'}, 'gradient'),
    ({'implementation': 'some'}, 'implementation'),
  ],
)
def test_a_wrong_argument_is_named_in_one_line(options, named):
  x, kernel, _, _ = problem()
  gradient = options.pop('gradient', 'dense')
  pattern = BlockPattern(SIZE, **options)
  with pytest.raises(ValueError, match=named) as error:
    sparse_linear(jnp.asarray(x), jnp.asarray(kernel), pattern, gradient)
  assert '\n' not in str(error.value)
