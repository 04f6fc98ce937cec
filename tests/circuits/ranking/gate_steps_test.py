"""The next ablation is most often the one that a circuit holds up worst to."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits.ranking import gate_steps


def test_ablations_are_drawn_in_proportion_to_their_losses():
  keys = jax.random.split(jax.random.key(0), 4000)
  seen = jnp.array([0.0, 0.1, 0.3])
  drawn = jax.vmap(lambda key: gate_steps.draw_ablation(key, seen))(keys)
  shares = np.bincount(np.asarray(drawn), minlength=3) / len(keys)
  # One that is met is not forgotten: 0.02 nats are added to each.
  np.testing.assert_allclose(shares, np.array([2, 12, 32]) / 46, atol=0.03)
