"""The published update, against a few lines of numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.pretrain import expansion
from sparse_interp.sparsity import rules
from sparse_interp.training import optimizer as optimizer_lib

PARAMS = {
  'w': np.array([[1.0, -2.0], [0.5, 3.0]], np.float32),
  'bigram_table': np.array([[1.0, 1.0]], np.float32),
  'bias': np.array([0.5], np.float32),
}
GRADIENT = {
  'w': np.array([[30.0, -1.0], [4.0, 2.0]], np.float32),
  'bigram_table': np.array([[-2.0, 7.0]], np.float32),
  'bias': np.array([9.0], np.float32),
}
RATE = np.array([0.0, 0.1, 0.05])
RMS = np.sqrt(
  np.mean(np.concatenate([g.ravel() for g in GRADIENT.values()]) ** 2)
)


def scaled(how):
  tx = optimizer_lib.scale_gradient(how)
  updates, _ = tx.update(
    {k: jnp.asarray(g) for k, g in GRADIENT.items()}, tx.init(PARAMS)
  )
  return updates


def test_gradients_are_divided_by_their_rms_over_all_parameters():
  for name, gradient in scaled('normalise').items():
    np.testing.assert_allclose(gradient, GRADIENT[name] / RMS, rtol=1e-5)


def test_clip_divides_large_gradients_only():
  for name, gradient in scaled('clip').items():
    np.testing.assert_allclose(gradient, GRADIENT[name] / RMS, rtol=1e-6)
  tx = optimizer_lib.scale_gradient('clip')
  small = {'w': jnp.array([0.1, -0.2])}
  np.testing.assert_array_equal(tx.update(small, None)[0]['w'], small['w'])
  np.testing.assert_array_equal(scaled('none')['w'], GRADIENT['w'])


def test_a_move_is_turned_round_and_as_long_as_the_rate_of_its_step():
  tx = optimizer_lib.scale_by_table(RATE)
  for step, rate in enumerate([*RATE, RATE[-1]]):  # past the end the last
    moved, _ = tx.update(jnp.array([3.0, -8.0]), tx.init(None), step=step)
    np.testing.assert_allclose(moved, [-3 * rate, 8 * rate], rtol=1e-6)


@pytest.mark.slow
def test_decay_follows_the_projection_on_matrices_but_not_the_bigram_table():
  tx = optimizer_lib.make_optimizer(
    optimizer_lib.OptimizerConfig(),
    RATE,
    {'w': rules.Target(3)},
  )
  params = {k: jnp.asarray(p) for k, p in PARAMS.items()}
  state = tx.init(params)
  moment = {k: np.zeros_like(p) for k, p in PARAMS.items()}
  square = {k: np.zeros_like(p) for k, p in PARAMS.items()}
  expected = {k: p.copy() for k, p in PARAMS.items()}
  for i in range(3):
    step = optimizer_lib.step_of(state)
    assert int(step) == i
    gradient = {k: jnp.asarray(g) for k, g in GRADIENT.items()}
    updates, state = tx.update(gradient, state, params, step=step)
    params = optax.apply_updates(params, updates)
    for name, gradient in GRADIENT.items():
      g = gradient / (RMS + 1e-5)
      moment[name] = 0.9 * moment[name] + 0.1 * g
      square[name] = 0.95 * square[name] + 0.05 * g**2
      m = moment[name] / (1 - 0.9 ** (i + 1))
      v = square[name] / (1 - 0.95 ** (i + 1))
      expected[name] = expected[name] - RATE[i] * m / (np.sqrt(v) + 0.1)
    smallest = np.abs(expected['w']).argmin()
    expected['w'].reshape(-1)[smallest] = 0
    expected['w'] = expected['w'] * (1 - 0.1 * RATE[i])
    for name in PARAMS:
      np.testing.assert_allclose(params[name], expected[name], rtol=2e-5)
    assert np.count_nonzero(params['w']) == 3


def test_constants_that_nobody_sets_are_the_published_ones():
  published = expansion.get_config().optimizer
  for name, value in dataclasses.asdict(
    optimizer_lib.OptimizerConfig()
  ).items():
    assert published[name] == value, name


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'beta1': 1.0}, 'optimizer.beta1'),
    ({'beta2': -0.1}, 'optimizer.beta2'),
    ({'eps': 0.0}, 'optimizer.eps'),
    ({'weight_decay': -1.0}, 'optimizer.weight_decay'),
    ({'gradient_rms': 'norm'}, 'optimizer.gradient_rms'),
  ],
)
def test_wrong_constants_are_named_in_one_line(changes, field):
  with pytest.raises(ValueError, match=field):
    optimizer_lib.OptimizerConfig(**changes)
