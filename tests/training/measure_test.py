"""The loop is stopped where a tensor has not as many weights as asked for."""

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.pretrain import tiny
from sparse_interp.models import GPT
from sparse_interp.sparsity import projection, statistics
from sparse_interp.training import measure, optimizer, plan, sharding, state

NUMBERS = {'train_loss': 1.0, 'gradient_rms': 1.0, 'mask_churn': 0.0}
NAME = 'h_1/mlp/c_fc/kernel'


@pytest.fixture(scope='module')
def made():
  """(measure, state after the last step) of the tiny model, projected once."""
  what = plan.make_plan(tiny.get_config())
  model = GPT(what.model, what.products)
  tx = optimizer.make_optimizer(
    what.optimizer, what.learning_rate, what.targets
  )
  begun = jax.jit(state.make_init(model, tx))(jax.random.key(0))

  def project(params):
    tensors = statistics.named_tensors(params)
    masks, vacant = projection.keep_masks(
      tensors, what.targets, what.updates - 1
    )
    kept = [
      jnp.where(masks[name], tensor, 0) if name in masks else tensor
      for name, tensor in tensors.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), kept), vacant

  params, vacant = jax.jit(project)(begun.params)
  opt_state = optax.tree.set(begun.opt_state, vacant=vacant)
  mesh = sharding.make_mesh(1)
  return (
    measure.Measure(what, model, mesh, []),
    state.TrainState(params, opt_state),
    what.updates,
  )


def test_as_many_as_asked_for(made):
  rows, reached, updates = made
  row = rows.row(updates, NUMBERS, reached, validate=False)
  assert row['nonzeros'] > 0


@pytest.mark.parametrize('change', [0.0, 1.0])
def test_one_weight_too_few_or_too_many_stops_the_run(made, change):
  rows, reached, updates = made
  kernel = reached.params['h_1']['mlp']['c_fc']['kernel']
  where = jnp.argmax((kernel != 0) if change == 0 else (kernel == 0))
  changed = kernel.reshape(-1).at[where].set(change).reshape(kernel.shape)
  params = jax.tree.map(lambda x: x, reached.params)
  params['h_1']['mlp']['c_fc']['kernel'] = changed
  with pytest.raises(ValueError, match=NAME) as error:
    rows.row(updates, NUMBERS, reached._replace(params=params), validate=False)
  assert '\n' not in str(error.value)
