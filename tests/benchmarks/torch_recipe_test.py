"""The recipe in torch trains as ours does, from the same weights and data."""

import pathlib

import jax
import numpy as np
import pytest

from experiments.pretrain import tiny
from sparse_interp.models import GPT
from sparse_interp.runs import torch_step
from sparse_interp.sparsity import statistics
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib

RECIPE = (
  pathlib.Path(__file__).parents[2]
  / 'experiments'
  / 'benchmarks'
  / 'torch_recipe.py'
)


@pytest.mark.slow
@pytest.mark.parametrize('sink', [True, False])
def test_first_losses_and_weights_are_ours(sink):
  pytest.importorskip('torch')
  config = tiny.get_config()
  config.model.sink = sink
  config.model.n_layer = 1
  config.sparsity.stop_fraction = 0.1
  plan = plan_lib.make_plan(config)
  module = torch_step.load_recipe(str(RECIPE))
  trainer = module.Trainer(
    torch_step.recipe_of(module, plan), torch_step.initial_params(plan, 0)
  )
  model = GPT(plan.model)
  optimizer = optimizer_lib.make_optimizer(
    plan.optimizer, plan.learning_rate, plan.targets
  )
  state = jax.jit(state_lib.make_init(model, optimizer))(jax.random.key(0))
  step = jax.jit(state_lib.make_train_step(model, optimizer))
  rng = np.random.default_rng(0)
  for _ in range(8):
    # The last token is among them: its row of bigrams must not train.
    tokens = rng.integers(0, config.data.vocab_size, (4, 16))
    tokens[0, :3] = config.data.vocab_size - 1
    state, numbers = step(state, tokens.astype(np.int32))
    loss = trainer.step(module.torch.as_tensor(tokens))
    np.testing.assert_allclose(loss, numbers['train_loss'], rtol=2e-5)
  for name, ours in statistics.named_tensors(state.params).items():
    theirs = trainer.params[name].detach().numpy()
    if name in plan.targets:
      count = plan.targets[name].counts[7]
      assert (theirs != 0).sum() == count
    # Two magnitudes a rounding apart may change places in a mask.
    same = np.isclose(theirs, ours, rtol=1e-3, atol=2e-5)
    assert (~same).sum() <= max(2, same.size // 1000), name


@pytest.mark.parametrize('name', ['recipe.txt', 'none.py', '.'])
def test_a_recipe_that_is_no_python_file_is_named(tmp_path, monkeypatch, name):
  monkeypatch.setattr(torch_step.competitors, 'module', lambda name: None)
  (tmp_path / 'recipe.txt').write_text('lr = 1')
  with pytest.raises(ValueError, match='torch_recipe must be a Python file'):
    torch_step.load_recipe(str(tmp_path / name))
