"""Weights that are zero get a gradient at every step, or at every n-th."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.pretrain import tiny
from sparse_interp.models import GPT
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib

KERNEL = ('h_0', 'mlp', 'c_fc', 'kernel')


def first_moments(regrow_every, steps):
  """Adam's first moment of weights that are zero, after every step."""
  config = tiny.get_config()
  config.sparsity.update(
    {'regrow_every': regrow_every, 'density': 1 / 10, 'minimum_alive': 1}
  )
  config.sparsity.start_fraction = config.sparsity.stop_fraction = 0.0
  config.optimizer.beta1 = 0.0  # what is left is the gradient of the step
  plan = plan_lib.make_plan(config)
  model = GPT(plan.model, plan.products)
  optimizer = optimizer_lib.make_optimizer(
    plan.optimizer, plan.learning_rate, plan.targets
  )
  state = jax.jit(state_lib.make_init(model, optimizer))(jax.random.key(0))
  step = jax.jit(
    state_lib.make_train_step(model, optimizer, (), plan.regrow_every)
  )
  shape = (config.data.batch_size, config.data.length)
  tokens = jax.random.randint(jax.random.key(1), shape, 0, 256)
  found, losses = [], []
  for _ in range(steps):
    dropped = weight(state.params) == 0
    state, numbers = step(state, tokens)
    moments = weight(optax.tree.get(state.opt_state, 'mu'))
    found.append(float(jnp.max(jnp.abs(jnp.where(dropped, moments, 0)))))
    losses.append(float(numbers['train_loss']))
  return found, losses


def weight(tree):
  for key in KERNEL:
    tree = tree[key]
  return tree


@pytest.mark.slow
def test_dropped_weights_have_gradients_at_every_nth_step_only():
  found, losses = first_moments(3, 7)
  always, wanted = first_moments(None, 7)
  # Before the first step nothing is zero yet.
  assert [moment > 0 for moment in found[1:]] == [False, False, True] * 2
  assert all(moment > 0 for moment in always[1:])
  np.testing.assert_allclose(losses[:2], wanted[:2], rtol=1e-6)
  assert losses[-1] < losses[0]
