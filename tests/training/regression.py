"""A linear regression: what the loop trains in the tests besides a model.

As a program, `python -m tests.training.regression --workdir=...`, it can be
killed.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_interp.training import loop

SLOPE, INTERCEPT = np.float32([1.0, -2.0, 0.5]), np.float32(0.25)
EXAMPLES, STEPS = 32, 63
_SEED = 5


class State(NamedTuple):
  """What a step changes. Not the state of a model, and with a bare array."""

  count: Any
  params: Any
  opt_state: Any

  @property
  def step(self):
    return self.count


class Examples:
  """Batches that follow from a seed and their number."""

  def __init__(self, before: Callable[[int], None] = lambda taken: None):
    """`before` is told how many were taken before each of them."""
    self._taken, self._before = 0, before

  def __next__(self):
    self._before(self._taken)
    rng = np.random.default_rng((_SEED, self._taken))
    inputs = rng.normal(size=(EXAMPLES, 3)).astype(np.float32)
    noise = rng.normal(scale=0.1, size=EXAMPLES).astype(np.float32)
    self._taken += 1
    return inputs, inputs @ SLOPE + INTERCEPT + noise

  def get_state(self):
    return {'taken': self._taken}

  def set_state(self, state):
    self._taken = state['taken']


_optimizer = optax.sgd(0.1, momentum=0.7)


def init():
  """A line drawn at random."""
  slope = jax.random.normal(jax.random.key(_SEED), (3,))
  params = {'slope': slope, 'intercept': jnp.zeros(())}
  return State(jnp.int32(0), params, _optimizer.init(params))


@jax.jit
def step(state, batch):
  inputs, targets = batch

  def loss_of(params):
    found = inputs @ params['slope'] + params['intercept']
    return jnp.mean((found - targets) ** 2)

  loss, gradient = jax.value_and_grad(loss_of)(state.params)
  updates, opt_state = _optimizer.update(gradient, state.opt_state)
  params = optax.apply_updates(state.params, updates)
  return State(state.count + 1, params, opt_state), {'loss': loss}


def measure(step, numbers, state, thorough):
  """How far off the line is, where somebody asks for more than the loss."""
  row = loop.numbers_alone(step, numbers, state, thorough)
  if thorough:
    row['off'] = float(jnp.abs(state.params['slope'] - SLOPE).max())
  return row


def train(workdir, batches=None, step=step, keep=2, **options):
  """Trains, or goes on; see `loop.run` for what may be asked for otherwise."""
  options = {
    'steps': STEPS,
    'measure': measure,
    'counted': ('examples', EXAMPLES),
    'log_every': 10,
    'eval_every': 20,
    'checkpoint_every': 25,
  } | options
  batches = Examples() if batches is None else batches
  config = {'seed': _SEED}
  with loop.opened(workdir, config, 'regression', keep) as work:
    return loop.run(step, init, batches, work, **options)


def cli(arguments=None):
  """Trains slowly enough to be killed in between."""
  (workdir,) = sys.argv[1:] if arguments is None else arguments
  train(
    workdir.removeprefix('--workdir='), Examples(lambda taken: time.sleep(0.04))
  )


if __name__ == '__main__':
  cli()
