"""Attention of long sequences, whose queries take turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPTConfig
from sparse_interp.models.layers import attention, visibility

TIME = 200  # more than attend at once, and no multiple of those who do


def expected(q, k, v, visible, sink):
  scores = np.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
  weights = np.where(visible, np.exp(scores), 0)
  total = weights.sum(-1, keepdims=True)
  if sink is not None:
    total = total + np.exp(sink)[:, None, None]
  return np.einsum('bhqk,bkhd->bqhd', weights / total, v)


@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('lengths', [None, (200, 90)])
@pytest.mark.parametrize('sink', [None, (0.5, -1.0, 2.0)])
def test_long_sequences_attend_as_the_formula_says(causal, lengths, sink):
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 2, TIME, 3, 4)).astype(np.float32)
  lengths = None if lengths is None else jnp.array(lengths)
  sink = None if sink is None else jnp.array(sink, jnp.float32)
  visible = visibility(GPTConfig(causal=causal), TIME, lengths)
  found = jax.jit(lambda *x: attention(*x, visible, sink))(q, k, v)
  wanted = expected(q, k, v, np.asarray(visible), sink)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_keys_that_no_query_of_a_turn_sees_take_no_product():
  x = jnp.zeros((1, 256, 1, 4))
  visible = visibility(GPTConfig(), 256, None)
  text = jax.jit(lambda x: attention(x, x, x, visible, None)).lower(x).as_text()
  for keys in (64, 128, 192, 256):
    assert f'tensor<1x1x64x{keys}xf32>' in text
  assert 'tensor<1x1x256x256xf32>' not in text
