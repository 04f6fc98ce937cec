"""Attention against its formula, in plain jax and by kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPTConfig
from sparse_interp.models.layers import keys_seen
from sparse_interp.ops.attention.attention import (
  attention,
  visible_keys,
)

TIME = 200  # more than attend at once, and no multiple of those who do


def expected(q, k, v, seen, sink):
  visible = visible_keys(seen[:, None], k.shape[1])
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
  weights = jnp.where(visible, jnp.exp(scores), 0)
  total = weights.sum(-1, keepdims=True)
  if sink is not None:
    total = total + jnp.exp(sink)[:, None, None]
  return jnp.einsum('bhqk,bkhd->bqhd', weights / total, v)


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['reference', 'cpu'])
@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('lengths', [None, (200, 90)])
@pytest.mark.parametrize('sink', [None, (0.5, -1.0, 2.0)])
def test_long_sequences_attend_as_the_formula_says(
  implementation, causal, lengths, sink
):
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 2, TIME, 3, 4)).astype(np.float32)
  lengths = None if lengths is None else jnp.array(lengths)
  sink = None if sink is None else jnp.array(sink, jnp.float32)
  seen = keys_seen(GPTConfig(causal=causal), TIME, lengths)

  def loss(attend, q, k, v, sink):
    mixed = attend(q, k, v, seen, sink)
    return jnp.sum(mixed * jnp.sin(jnp.arange(mixed.size)).reshape(q.shape))

  ours = functools.partial(attention, implementation=implementation)
  for attend in (ours, expected):
    both = jax.value_and_grad(lambda *x, a=attend: loss(a, *x), (0, 1, 2))
    with_sink = jax.grad(lambda *x, a=attend: loss(a, *x), 3)
    results = jax.jit(both)(q, k, v, sink)
    results += () if sink is None else (jax.jit(with_sink)(q, k, v, sink),)
    if attend is ours:
      found = results
  jax.tree.map(
    lambda f, w: np.testing.assert_allclose(f, w, atol=3e-5, rtol=1e-5),
    found,
    results,
  )


@pytest.mark.parametrize('implementation', ['reference', 'cpu'])
def test_narrow_floats_are_summed_as_float32(implementation):
  rng = np.random.default_rng(0)
  parts = rng.normal(size=(3, 2, 32, 3, 4)).astype(np.float32)
  q, k, v = parts = jnp.asarray(parts, jnp.bfloat16)
  seen = keys_seen(GPTConfig(), 32, None)
  attend = lambda *x: attention(*x, seen, None, implementation)  # noqa: E731
  mixed, pull = jax.vjp(attend, q, k, v)
  wide = expected(*parts.astype(jnp.float32), seen, None)
  assert mixed.dtype == jnp.bfloat16
  np.testing.assert_allclose(mixed.astype(jnp.float32), wide, atol=0.03)
  assert {g.dtype for g in pull(mixed)} == {jnp.dtype(jnp.bfloat16)}


def test_keys_that_no_query_of_a_turn_sees_take_no_product():
  x = jnp.zeros((1, 256, 1, 4))
  seen = keys_seen(GPTConfig(), 256, None)
  attend = lambda x: attention(x, x, x, seen, None, 'reference')  # noqa: E731
  text = jax.jit(attend).lower(x).as_text()
  for keys in (64, 128, 192, 256):
    assert f'tensor<1x1x64x{keys}xf32>' in text
  assert 'tensor<1x1x256x256xf32>' not in text


def test_an_implementation_that_is_not_there_is_named():
  x = jnp.zeros((1, 2, 1, 4))
  with pytest.raises(
    ValueError, match=r'^implementation must be one of .*flash'
  ):
    attention(x, x, x, np.ones((1, 2), int), None, 'flash')
