"""Sparse matrices of many kinds, and products with them in plain numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.ops.row_sparse import row_sparse


def make(kind, inputs, outputs, seed=0):
  """A matrix of float32 with a pattern of nonzero weights."""
  rng = np.random.default_rng(seed)
  full = rng.uniform(0.5, 1, (inputs, outputs)) * rng.choice(
    [-1, 1], (inputs, outputs)
  )
  mask = np.zeros((inputs, outputs), bool)
  if kind == 'random':
    mask = rng.random((inputs, outputs)) < 0.1
    mask[:, rng.random(outputs) < 0.3] = False
    mask[rng.random(inputs) < 0.3] = False
  elif kind == 'one output':
    mask[:, outputs // 2] = True
  elif kind == 'one input':
    mask[inputs // 2] = True
  elif kind == 'skewed':
    mask = rng.random((inputs, outputs)) < 0.5 ** np.arange(1, outputs + 1)
  elif kind == 'last weight':
    mask[-1, -1] = True
  elif kind == 'all':
    mask[:] = True
  return (full * mask).astype(np.float32)


KINDS = (
  'random',
  'one output',
  'one input',
  'skewed',
  'last weight',
  'all',
  'none',
)


@functools.partial(jax.jit, static_argnums=3)
def results(x, w, dy, implementation):
  """Product, its gradients in x and in the weights."""

  def product(x, value):
    replaced = row_sparse.RowSparse(value, w.layout, w.shape)
    return row_sparse.row_sparse_matmul(x, replaced, implementation)

  y, pull = jax.vjp(product, x, w.value)
  return y, *pull(dy)


def expected(x, matrix, dy):
  """The same in float64, and the places of the weights by output channel."""
  outputs, inputs = np.nonzero(matrix.T)
  flat_x, flat_dy = (a.reshape(-1, a.shape[-1]).astype(float) for a in (x, dy))
  dw = flat_x.T @ flat_dy
  return x @ matrix.astype(float), dy @ matrix.T, dw[inputs, outputs]


def check(x, matrix, implementation, tolerance=1e-5):
  """Asserts that an implementation agrees with float64."""
  rng = np.random.default_rng(1)
  x = jnp.asarray(x)
  dy = rng.standard_normal((*x.shape[:-1], matrix.shape[1]))
  dy = jnp.asarray(dy, x.dtype)
  w = row_sparse.from_dense(matrix, for_gpu=implementation.startswith('gpu'))
  found = results(x, w, dy, implementation)
  wanted = expected(
    np.asarray(x, np.float32), matrix, np.asarray(dy, np.float32)
  )
  assert found[0].dtype == found[1].dtype == x.dtype
  for one, other in zip(found, wanted, strict=True):
    scale = max(1, np.abs(other).max(initial=0))
    np.testing.assert_allclose(
      np.asarray(one, np.float64), other, atol=tolerance * scale
    )
