"""Gates: hard forward, soft backward, and edits that are what they say."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits.gating import gates
from sparse_interp.models import GPTConfig

_TAUS = hnp.arrays(
  np.float32, 5, elements=st.floats(-1, 1, width=32, allow_subnormal=False)
)


@hypothesis.given(tau=_TAUS)
@hypothesis.settings(max_examples=25)
def test_gate_is_exactly_zero_or_one_and_off_at_zero(tau):
  np.testing.assert_array_equal(
    gates.heaviside(jnp.asarray(tau), 1.0), (tau > 0) * 1.0
  )
  assert gates.heaviside(jnp.zeros(1), 1.0)[0] == 0


@hypothesis.given(tau=_TAUS, temperature=st.floats(0.1, 10))
@hypothesis.settings(max_examples=25)
def test_surrogate_is_the_derivative_of_a_sigmoid(tau, temperature):
  weights = jnp.arange(1.0, 6.0)
  gradient = jax.grad(
    lambda t: jnp.sum(weights * gates.heaviside(t, temperature))
  )(jnp.asarray(tau))
  soft = 1 / (1 + np.exp(-tau.astype(np.float64) / temperature))
  expected = np.arange(1, 6) * soft * (1 - soft) / temperature
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_edits_keep_values_or_put_means_and_pass_exact_gradients():
  rng = np.random.default_rng(0)
  gate = jnp.array([1.0, 0.0, 1.0, 0.25])
  mean = jnp.asarray(rng.normal(size=4), jnp.float32)
  x = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
  params = {'untouched': gate}
  config = GPTConfig(vocab_size=2, n_layer=1, d_model=4, d_head=4)
  same, edits = gates.apply_gates(
    config, params, {}, {'site': gate}, {'site': mean}
  )
  assert same is params
  y = edits['site'](x)
  np.testing.assert_array_equal(y[..., [0, 2]], x[..., [0, 2]])
  np.testing.assert_array_equal(y[..., 1], np.full((2, 3), mean[1]))
  np.testing.assert_allclose(y[..., 3], 0.25 * x[..., 3] + 0.75 * mean[3])

  def loss(function):
    return lambda g, x: jnp.sum(jnp.sin(function(g, x)))

  plain = lambda g, x: g * x + (1 - g) * mean  # noqa: E731
  ours = jax.grad(loss(lambda g, x: gates.blend(g, x, mean)), (0, 1))(gate, x)
  truth = jax.grad(loss(plain), (0, 1))(gate, x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    ours,
    truth,
  )
