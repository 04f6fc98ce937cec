"""The task loss and its calibration."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits.gating import (
  calibration,
  gated_model,
  losses,
  output_loss,
  task_loss,
)
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.models import GPT


def test_loss_is_two_way_cross_entropy_at_the_last_token(known):
  pairs = task_loss.make_pairs(known.test)
  ones = {
    site: np.ones(width, np.float32) for site, width in known.sites.items()
  }
  differences = gated_model.all_outputs(known.model, ones, pairs)
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
    losses.pair_losses(differences),
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
  wrong_losses = losses.pair_losses(wrong, scale)
  np.testing.assert_allclose(wrong_losses, np.log(2), atol=0.2)


def test_a_bounded_scale_neither_shouts_nor_whispers():
  low, high = calibration.SCALES
  quiet = 1e-3 * np.stack([np.ones(8), -np.ones(8)], axis=1)
  scale, shift = calibration.fit_bounded(quiet, np.inf)
  np.testing.assert_allclose((scale, shift), (high, 0), atol=1e-6)
  # Loud, and as often wrong as right.
  noise = np.random.default_rng(0).normal(0, 30, (200, 2))
  assert calibration.fit_bounded(noise, np.inf)[0] == low


def test_a_bounded_fit_is_the_free_one_where_that_is_within():
  rng = np.random.default_rng(0)
  signs = np.array([1, -1])
  differences = 0.8 * (signs + rng.normal(0.4, 0.9, (100, 2)))
  free = calibration.fit(np.float32(differences))
  np.testing.assert_allclose(
    calibration.fit_bounded(differences, np.inf), free, atol=0.1
  )
  most = abs(float(free[1])) / 2
  scale, shift = calibration.fit_bounded(differences, most)
  np.testing.assert_allclose(abs(shift), most)
  # No neighbour within the bounds is better.
  loss = lambda *fit: float(losses.pair_losses(differences, *fit).mean())  # noqa: E731
  best = loss(scale, shift)
  for factor in (0.95, 1.05):
    assert loss(scale * factor, shift) > best
  assert loss(scale, 0.9 * shift) > best


def test_a_circuit_may_shift_as_much_as_centres_the_full_model():
  full = np.array([[5.0, -3.0], [4.0, -2.0]])
  assert calibration.centre(full) == 1.0
  assert calibration.centre(full - 1) == 0.0


def test_perfect_circuits_get_a_finite_scale():
  right = np.stack([np.ones(8), -np.ones(8)], axis=1).astype(np.float32)
  scale, shift = calibration.fit(right)
  assert 1 < scale < 100
  assert abs(float(shift)) < 1e-3


def test_kl_is_that_of_the_two_answers_and_zero_for_the_full_model():
  rng = np.random.default_rng(0)
  full, ours = np.float32(rng.normal(0, 2, (2, 50, 2)))
  np.testing.assert_allclose(losses.kl_losses(full, full), 0, atol=1e-6)
  sigmoid = lambda d: 1 / (1 + np.exp(-d.astype(np.float64)))  # noqa: E731
  p, q = sigmoid(full), sigmoid(np.float32(1.7 * ours - 0.4))
  kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  np.testing.assert_allclose(
    losses.kl_losses(ours, full, 1.7, -0.4), kl.mean(axis=1), rtol=1e-4
  )


def test_kl_weight_blends_task_loss_and_kl_of_the_full_answers(known):
  pairs = task_loss.make_pairs(known.test)
  full = gated_model.add_full(known.model, pairs)
  answers = np.float32(np.random.default_rng(0).normal(0, 1, (32, 2)))
  task = losses.pair_losses(answers)
  whole = gated_model.all_outputs(known.model, {}, pairs)
  np.testing.assert_array_equal(full.full, whole)
  kl = losses.kl_losses(answers, whole)
  np.testing.assert_allclose(full.losses(answers, kl_weight=1.0), kl)
  np.testing.assert_allclose(
    full.losses(answers, kl_weight=0.25), 0.75 * task + 0.25 * kl, rtol=1e-5
  )
  np.testing.assert_allclose(pairs.losses(answers), task)


def test_recorded_outputs_are_the_full_models_already(known):
  pairs = task_loss.make_pairs(known.test)
  recorded = output_loss.make_recorded(
    np.zeros((2, 4), np.int32), np.array([4, 3]), np.ones((2, 4, 1), np.float32)
  )
  assert isinstance(pairs, Batch)
  assert isinstance(recorded, Batch)
  assert recorded.with_full(lambda: pytest.fail('computed')) is recorded
