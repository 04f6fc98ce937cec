"""The kernels of attention: any shape, any batch, any split over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_interp.ops.attention.attention import attention
from sparse_interp.ops.cpu_kernels import native
from sparse_interp.ops.cpu_kernels.native_dense import (
  add_product,
  exponentials,
  largest,
)


def parts_of(rng, *shape):
  return rng.normal(size=(3, *shape)).astype(np.float32)


def loss(implementation):
  def of(q, k, v, seen, sink):
    y = attention(q, k, v, seen, sink, implementation)
    return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)), y

  return jax.value_and_grad(of, (0, 1, 2, 4), has_aux=True)


def compare(found, wanted, tolerance=2e-5):
  jax.tree.map(
    lambda f, w: np.testing.assert_allclose(
      f, w, atol=tolerance * max(1, float(jnp.max(jnp.abs(w)))), rtol=0
    ),
    found,
    wanted,
  )


@pytest.mark.slow
@settings(max_examples=12)
@given(
  batch=st.integers(1, 3),
  time=st.sampled_from([1, 2, 15, 16, 17, 40]),
  heads=st.integers(1, 3),
  width=st.sampled_from([1, 5, 16, 33]),
  scale=st.sampled_from([0.1, 1.0, 30.0]),
  seed=st.integers(0, 99),
)
def test_any_shape_gives_what_plain_jax_gives(
  batch, time, heads, width, scale, seed
):
  rng = np.random.default_rng(seed)
  parts = parts_of(rng, batch, time, heads, width) * np.float32(scale)
  seen = rng.integers(1, time + 1, (batch, time))
  sink = jnp.asarray(rng.normal(size=heads), jnp.float32)
  compare(
    loss('cpu')(*parts, seen, sink), loss('reference')(*parts, seen, sink)
  )


def test_scores_far_apart_leave_one_key_and_no_infinity():
  q, k, v = parts_of(np.random.default_rng(0), 1, 20, 1, 4) * 1e3
  seen = 1 + np.arange(20)[None]
  y = attention(*map(jnp.asarray, (q, k, v)), seen, None, 'cpu')
  scores = np.where(np.tri(20), q[0, :, 0] @ k[0, :, 0].T, -np.inf)
  np.testing.assert_allclose(y[0, :, 0], v[0, scores.argmax(1), 0], rtol=1e-5)


def test_what_is_not_a_number_stays_seen_by_those_who_see_it():
  q, k, v = parts_of(np.random.default_rng(0), 1, 20, 1, 4)
  k[0, 7] = np.nan
  seen = 1 + np.arange(20)[None]
  y = attention(*map(jnp.asarray, (q, k, v)), seen, None, 'cpu')
  is_nan = np.isnan(y[0]).all((1, 2))
  np.testing.assert_array_equal(is_nan, np.arange(20) >= 7)


def test_a_cpu_takes_the_kernels():
  x, seen = jnp.zeros((2, 5, 1, 4)), np.full((1, 5), 5)

  def text(implementation):
    run = jax.jit(
      jax.grad(lambda x: attention(x, x, x, seen, None, implementation).sum())
    )
    return run.lower(x).compile().as_text()

  for name in ('attention_forward', 'attention_backward'):
    assert name in text('auto')
    assert name not in text('reference')


@pytest.mark.parametrize('shape', [(0, 5, 1, 4), (2, 0, 1, 4), (2, 5, 0, 4)])
def test_nothing_attends_to_nothing(shape):
  x, seen = jnp.zeros(shape), np.full((1, shape[1]), shape[1])
  assert attention(x, x, x, seen, None, 'cpu').shape == shape


def test_no_more_keys_are_read_than_there_are():
  parts = [
    jnp.asarray(x) for x in parts_of(np.random.default_rng(0), 1, 5, 1, 4)
  ]
  far, all_keys = np.full((1, 5), 10**6), np.full((1, 5), 5)
  wanted = attention(*parts, all_keys, None, 'reference')
  compare(attention(*parts, far, None, 'cpu'), wanted)


def test_a_batch_of_batches_with_shared_operands():
  rng = np.random.default_rng(0)
  q = parts_of(rng, 4, 2, 17, 2, 8)[0]
  _, k, v = parts_of(rng, 2, 17, 2, 8)
  sinks = rng.normal(size=(4, 2)).astype(np.float32)
  seen = 1 + np.arange(17)[None]

  def several(implementation):
    one = lambda q, sink: loss(implementation)(q, k, v, seen, sink)  # noqa: E731
    return jax.jit(jax.vmap(one))(q, sinks)

  compare(several('cpu'), several('reference'))


@pytest.mark.slow
@pytest.mark.parametrize(
  'spec', [PartitionSpec('x'), PartitionSpec(None, None, 'x')]
)
def test_devices_attend_to_their_own_rows_or_heads(spec):
  mesh = Mesh(np.array(jax.devices()[:4]), ('x',))
  rng = np.random.default_rng(0)
  parts = parts_of(rng, 4, 17, 8, 8)
  sink = jnp.zeros(8)
  seen = 1 + np.arange(17)[None]
  split = [jax.device_put(x, NamedSharding(mesh, spec)) for x in parts]
  run = jax.jit(lambda *parts: loss('cpu')(*parts, seen, sink))
  compare(run(*split), loss('reference')(*parts, seen, sink))
  assert 'all-gather' not in run.lower(*split).compile().as_text()
  (_, y), _ = run(*split)
  assert y.sharding.is_equivalent_to(NamedSharding(mesh, spec), 4)


@native.machine_code
def powers(x, origin):
  total = exponentials(x, 0, x.size, origin)
  return total, largest(x, 0, x.size)


def test_exponentials_are_exact_to_rounding():
  x = np.linspace(-86, 20, 16 * 4000, dtype=np.float32)
  wanted = np.exp(x.astype(np.float64))
  total, highest = powers(x, np.float32(0))
  assert np.abs(x / wanted - 1).max() < 2.5e-7
  assert highest == x[-1]
  np.testing.assert_allclose(total, wanted.sum(), rtol=1e-5)


def test_exponentials_at_the_ends():
  x = np.full(16, -1e4, np.float32)
  x[:4] = -np.inf, -87.5, 0, np.nan
  powers(x, np.float32(0))
  np.testing.assert_array_equal(x[:5], [0, 0, 1, np.nan, 0])


@native.machine_code
def multiply(a, b, c):
  add_product(16, 32, 5, (a, 3, 1, 16), (b, 2, 33), (c, 1, 40))


def test_products_read_transposed_and_add():
  rng = np.random.default_rng(0)
  a, b, c = (rng.normal(size=999).astype(np.float32) for _ in range(3))
  before = c.copy()
  multiply(a, b, c)
  wanted = before.copy()
  view = wanted[1 : 1 + 16 * 40].reshape(16, 40)
  own = a[3 : 3 + 5 * 16].reshape(5, 16).T
  view[:, :32] += own @ b[2 : 2 + 5 * 33].reshape(5, 33)[:, :32]
  np.testing.assert_allclose(c, wanted, atol=1e-5)
