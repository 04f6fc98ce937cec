"""A layer's product skips zeros where that can pay, and only there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops.row_sparse import (
  row_sparse_kernels,
  row_sparse_reference,
)
from sparse_interp.ops.row_sparse.row_pattern import RowPattern
from sparse_interp.ops.sparse_linear import sparse_linear
from tests.ops.row_sparse.sparse_matrices import KINDS, make


@functools.partial(
  jax.jit, static_argnames=('dense_above', 'gradient', 'implementation')
)
def value_and_gradients(
  x, kernel, dy, dense_above=0.5, gradient='dense', implementation='cpu'
):
  def multiply(x, kernel):
    pattern = RowPattern(dense_above, implementation)
    return sparse_linear(x, kernel, pattern, gradient)[0]

  y, pull = jax.vjp(multiply, x, kernel)
  return y, *pull(dy)


def problem(kind, inputs=37, outputs=70, tokens=(3, 15)):
  rng = np.random.default_rng(0)
  kernel = make(kind, inputs, outputs)
  x = rng.standard_normal((*tokens, inputs), np.float32)
  dy = rng.standard_normal((*tokens, outputs), np.float32)
  return x, kernel, dy


# 'all' has more weights than are listed.
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('gradient', ['dense', 'kept'])
@pytest.mark.parametrize('implementation', ['cpu', 'reference'])
def test_it_is_the_dense_product(kind, gradient, implementation):
  x, kernel, dy = problem(kind)
  found = value_and_gradients(x, kernel, dy, 0.5, gradient, implementation)
  flat_x, flat_dy = (a.reshape(-1, a.shape[-1]).astype(float) for a in (x, dy))
  dw = flat_x.T @ flat_dy
  if gradient == 'kept':
    dw *= kernel != 0
  for one, other in zip(found, (x @ kernel, dy @ kernel.T, dw), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
  'width',
  [1, 15, 16, 33],
)
@pytest.mark.parametrize('by', ['input', 'output'])
def test_lists_of_weights_are_those_of_the_reference(width, by):
  for kind in KINDS:
    matrix = make(kind, 21, width)
    held = int(np.count_nonzero(matrix))
    for capacity in (held, max(1, held - 1), held + 3):
      if capacity == 0:
        continue
      found, wanted = (
        module.gather(jnp.asarray(matrix), capacity, by)
        for module in (row_sparse_kernels, row_sparse_reference)
      )
      (value, (index, start), count), reference = found, wanted
      assert int(count) == int(reference[2]) == held
      np.testing.assert_array_equal(start, reference[1][1])
      listed = int(start[-1])
      assert listed == (held if held <= capacity else 0)
      np.testing.assert_array_equal(value[:listed], reference[0][:listed])
      np.testing.assert_array_equal(index[:listed], reference[1][0][:listed])


def test_only_where_it_pays_are_zeros_skipped():
  x, kernel, dy = problem('one input')
  x[..., 0] = np.inf  # times zero this is NaN, unless it is skipped
  assert np.all(np.isfinite(value_and_gradients(x, kernel, dy)[0]))
  y, *_ = value_and_gradients(x, kernel, dy, dense_above=0.01)
  assert not np.any(np.isfinite(y))


def test_the_share_is_that_of_nonzero_weights():
  x, kernel, _ = problem('random')
  _, share = sparse_linear(jnp.asarray(x), jnp.asarray(kernel), RowPattern(0.5))
  assert float(share) == pytest.approx(np.mean(kernel != 0))


def test_masters_in_float32_get_gradients_in_float32():
  x, kernel, dy = problem('random')

  def loss(x, kernel):
    narrow = kernel.astype(jnp.bfloat16)
    y, _ = sparse_linear(x, narrow, RowPattern(0.5), 'kept')
    assert y.dtype == jnp.bfloat16
    return jnp.sum(y.astype(jnp.float32) * dy)

  narrow = jnp.asarray(x, jnp.bfloat16)
  gradients = jax.grad(loss, argnums=(0, 1))(narrow, jnp.asarray(kernel))
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]
  wanted = dy @ kernel.T
  np.testing.assert_allclose(
    gradients[0].astype(jnp.float32), wanted, atol=0.02 * np.abs(wanted).max()
  )


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'dense_above': 0.0}, 'dense_above must be in (0, 1], got 0.0'),
    ({'gradient': 'some'}, "gradient must be 'dense' or 'kept', got 'some'"),
  ],
)
def test_refusals_name_what_is_wrong(arguments, words):
  x, kernel, _ = problem('random')
  gradient = arguments.pop('gradient', 'dense')
  pattern = RowPattern(**arguments)
  with pytest.raises(ValueError) as error:
    sparse_linear(jnp.asarray(x), jnp.asarray(kernel), pattern, gradient)
  assert words in str(error.value)
