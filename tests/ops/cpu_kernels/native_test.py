"""Kernels called by XLA: threads, sizes, many calls at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops.cpu_kernels import native, native_vectors


@native.machine_code
def sums_of_rows(state, part, parts):
  x, y = native.floats(state, 0), native.floats(state, 1)
  shares = native.ints(state, 2)
  rows, width = native.size(state, 0, 0), native.size(state, 0, 1)
  for i in range(rows * part // parts, rows * (part + 1) // parts):
    y[i] = 0
    for j in range(width):
      y[i] += x[i * width + j]
  shares[part] = 1
  if part == 0:
    shares[shares.size - 1] = parts


def run(x):
  shapes = [
    jax.ShapeDtypeStruct((x.shape[0],), jnp.float32),
    jax.ShapeDtypeStruct((1025,), jnp.int32),
  ]
  return native.call(sums_of_rows, shapes, x)


def test_all_shares_are_done_before_the_results_are_there():
  x = jnp.arange(2.0 * 3 * 4).reshape(2, 3, 4)
  for _ in range(200):
    y, shares = run(x)
    np.testing.assert_array_equal(y, x.reshape(2, 12).sum(1))
    parts = int(shares[-1])
    assert 1 <= parts <= 1024
    assert np.all(shares[:parts] == 1)


def test_many_calls_in_one_program():
  def chain(x):
    branches = [run(x + i)[0] for i in range(20)]
    return run(jnp.stack(branches))[0]

  x = np.random.default_rng(0).standard_normal((50, 30), np.float32)
  wanted = [(x + i).sum() for i in range(20)]
  for _ in range(20):
    np.testing.assert_allclose(jax.jit(chain)(x), wanted, rtol=1e-4, atol=1e-2)


def test_no_rows_at_all():
  y, _ = run(jnp.zeros((0, 3)))
  assert y.shape == (0,)


@native.machine_code
def transposed(source, rows, columns, target):
  native_vectors.transpose(source, 0, columns, rows, columns, target, 0, rows)


@pytest.mark.parametrize('rows', [1, 7, 8, 9, 24])
@pytest.mark.parametrize('columns', [1, 8, 9, 17])
def test_a_matrix_is_transposed_within_its_bounds(rows, columns):
  # What follows both matrices is neither read nor written.
  size = rows * columns
  source = np.full(size + 256, np.nan, np.float32)
  source[:size] = np.arange(size)
  target = np.full(size + 256, -1, np.float32)
  transposed(source, rows, columns, target)
  wanted = np.arange(size).reshape(rows, columns).T
  np.testing.assert_array_equal(target[:size], wanted.reshape(-1))
  assert np.all(target[size:] == -1)
