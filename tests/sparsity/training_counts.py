"""Trains a shipped configuration and counts nonzeros after every step.

    python tests/sparsity/training_counts.py laptop 0,1,2,3,4 200 1

The arguments: configuration under experiments/pretrain, seeds, steps, devices
that share one copy of the state. Tokens are drawn as skewed as text is; a
schedule is stretched over the steps.
"""

import pathlib
import runpy
import sys

import jax
import numpy as np
import optax

from sparse_interp.models import GPT
from sparse_interp.sparsity import statistics
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import sharding
from sparse_interp.training import state as state_lib

CONFIGS = pathlib.Path(__file__).parents[2] / 'experiments' / 'pretrain'


def main(name: str, seeds: str, steps: str, fsdp: str) -> None:
  """Prints a line per seed, and one for each count that is off."""
  config = runpy.run_path(str(CONFIGS / f'{name}.py'))['get_config']()
  rows, length = config.data.batch_size, config.data.length
  config.train.tokens = (int(steps) - 1) * rows * length
  plan = plan_lib.make_plan(config)
  mesh = sharding.make_mesh(int(fsdp))
  optimizer = optimizer_lib.make_optimizer(
    plan.optimizer, plan.learning_rate, plan.targets
  )
  model = GPT(plan.model, plan.products)
  init = state_lib.make_init(model, optimizer)
  shardings = sharding.state_shardings(
    mesh, jax.eval_shape(init, jax.random.key(0))
  )
  start = jax.jit(init, out_shardings=shardings)
  step = jax.jit(
    state_lib.make_train_step(
      model, optimizer, tuple(plan.targets), plan.regrow_every
    ),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )
  count = jax.jit(statistics.nonzero_counts)
  for seed in map(int, seeds.split(',')):
    state, off = start(jax.random.key(seed)), 0
    rng = np.random.default_rng(seed)
    for i in range(plan.updates):
      drawn = rng.zipf(1.3, (rows, length)) - 1
      tokens = np.minimum(drawn, config.data.vocab_size - 1).astype(np.int32)
      state, _ = step(state, sharding.put_batch(mesh, tokens))
      found = jax.device_get(count(state.params))
      vacant = jax.device_get(optax.tree.get(state.opt_state, 'vacant'))
      asked = statistics.asked_counts(state.params, plan.targets, i)
      for tensor in plan.targets:
        if found[tensor] + vacant[tensor] != asked[tensor]:
          off += 1
          print(
            f'{tensor} after step {i + 1}, seed {seed}: {found[tensor]} '
            f'instead of {asked[tensor]} off'
          )
    print(f'{name} seed {seed}, {i + 1} steps: {off} off', flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
