"""The task loss and its calibration."""

import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits import calibration, task_loss
from sparse_interp.models import GPT


def test_loss_is_two_way_cross_entropy_at_the_last_token(known):
  pairs = task_loss.make_pairs(known.test)
  ones = {
    site: np.ones(width, np.float32) for site, width in known.sites.items()
  }
  differences = task_loss.differences_in_batches(
    known.config, known.params, known.means, ones, pairs, batch_pairs=24
  )
  tokens = known.test.tokens.reshape(64, -1)
  logits, _ = GPT(known.config).apply(
    {'params': known.params}, jnp.asarray(tokens)
  )
  logits = np.asarray(logits, np.float64)[
    np.arange(64), known.test.last.ravel()
  ]
  two = logits[:, list(known.answers)]
  log_probability = two - np.log(np.exp(two).sum(axis=1, keepdims=True))
  expected = -log_probability[np.arange(64), np.tile([0, 1], 32)]
  np.testing.assert_allclose(
    task_loss.pair_losses(differences),
    expected.reshape(32, 2).mean(axis=1),
    rtol=1e-4,
    atol=1e-5,
  )


def test_padding_shared_by_all_prompts_is_cut(known):
  pairs = task_loss.make_pairs(known.test, multiple=1)
  assert pairs.tokens.shape[2] == known.test.last.max() + 1
  assert task_loss.make_pairs(known.test, multiple=64).tokens.shape[2] == 8


def test_calibration_ends_at_the_minimum_of_the_task_loss():
  rng = np.random.default_rng(0)
  # A quiet and biased circuit that is sometimes wrong.
  signs = np.array([1, -1])
  differences = 0.3 * (signs + rng.normal(0.8, 0.9, (100, 2)))
  scale, shift = (float(x) for x in calibration.fit(np.float32(differences)))
  # At the minimum, errors are uncorrelated with what is fitted, up to the
  # documented pull of 1e-3 towards (1, 0).
  probability = 1 / (1 + np.exp(-(scale * differences + shift)))
  error = probability - (signs > 0)
  slopes = (error * differences).mean() * scale, error.mean()
  pull = -2e-3 * np.array([np.log(scale), shift])
  np.testing.assert_allclose(slopes, pull, atol=3e-4)
  assert scale > 1.5
  assert shift < -0.3


def test_calibration_never_turns_a_preference_around():
  wrong = np.stack([-np.ones(8), np.ones(8)], axis=1).astype(np.float32)
  scale, _ = calibration.fit(wrong)
  assert scale > 0
  losses = task_loss.pair_losses(wrong, scale)
  np.testing.assert_allclose(losses, np.log(2), atol=0.2)


def test_perfect_circuits_get_a_finite_scale():
  right = np.stack([np.ones(8), -np.ones(8)], axis=1).astype(np.float32)
  scale, shift = calibration.fit(right)
  assert 1 < scale < 100
  assert abs(float(shift)) < 1e-3
