"""The price of sparsity: a sparse training step against its dense twin.

Both steps are those of the pretrain run, jitted with donation, on the same
random tokens in one process; they take turns, so that a slow moment of the
machine hits both. The twin has density 1 everywhere, no projection and no
AbsTopK.
"""

import datetime
import pathlib
import platform
import time
from typing import Any

import jax
import jaxlib
import numpy as np
from ml_collections import config_dict

from sparse_interp.models import GPT
from sparse_interp.training import metrics, optimizer
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib
from sparse_interp.training import workdir as workdir_lib


def step_time(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Times both steps and writes step_time.json.

  Args:
    config: a pretrain configuration with `repetitions`.
    workdir: receives step_time.json.

  Returns:
    The content of step_time.json.

  Raises:
    ValueError: a field of the configuration is wrong.
  """
  if config.repetitions < 1:
    raise ValueError(
      f'repetitions must be at least 1, got {config.repetitions}; choose e.g. '
      '20.'
    )
  plans = {'sparse': plan_lib.make_plan(config)}
  plans['dense'] = plan_lib.make_plan(_dense_twin(config))
  shape = (config.data.batch_size, config.data.length)
  tokens = jax.random.randint(
    jax.random.key(config.seed), shape, 0, config.data.vocab_size
  )
  steps = {name: _compiled(plan, config) for name, plan in plans.items()}
  seconds = {name: [] for name in plans}
  for i in range(config.repetitions + 1):
    for name, (step, state) in steps.items():
      begun = time.perf_counter()
      state, _ = jax.block_until_ready(step(state, tokens))
      if i:  # the first round warms up
        seconds[name].append(time.perf_counter() - begun)
      steps[name] = (step, state)
    metrics.say('step_time', f'round {i}/{config.repetitions}')
  result = _result(config, seconds)
  pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
  path = pathlib.Path(workdir) / 'step_time.json'
  workdir_lib.write_json(path, result)
  metrics.say(
    'step_time',
    f'sparse {result["sparse"]["median_ms"]:.1f} ms, dense '
    f'{result["dense"]["median_ms"]:.1f} ms, ratio {result["ratio"]:.3f} '
    f'({config.repetitions} repetitions, medians); {path}',
  )
  return result


def _dense_twin(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  twin = config_dict.ConfigDict(config.to_dict())
  with twin.ignore_type():
    twin.model.activation_density = None
    twin.sparsity.density = 1.0
  return twin


def _compiled(plan: plan_lib.Plan, config: config_dict.ConfigDict) -> Any:
  """(jitted step, state) of a plan; a density of 1 needs no projection."""
  model = GPT(plan.model)
  dense = plan.schedule.density == 1
  targets = {} if dense else plan.targets
  transform = optimizer.make_optimizer(
    plan.optimizer, plan.learning_rate, targets
  )
  state = jax.jit(state_lib.make_init(model, transform))(
    jax.random.key(config.seed)
  )
  step = state_lib.make_train_step(model, transform, tuple(targets))
  return jax.jit(step, donate_argnums=0), state


def _result(
  config: config_dict.ConfigDict, seconds: dict[str, list[float]]
) -> dict[str, Any]:
  """What is written: medians, spread, ratio and where it was measured."""

  def spread(values):
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) * 1e3
    return {'median_ms': median, 'quartiles_ms': [low, high]}

  sparse, dense = seconds['sparse'], seconds['dense']
  tokens = config.data.batch_size * config.data.length
  return {
    'sparse': spread(sparse),
    'dense': spread(dense),
    'ratio': float(np.median(sparse) / np.median(dense)),
    'ratio_of_pairs': float(np.median(np.divide(sparse, dense))),
    'tokens_per_second': float(tokens / np.median(sparse)),
    'repetitions': config.repetitions,
    'config': config.to_dict(),
    'device': workdir_lib.device_name(),
    'processor': platform.processor() or platform.machine(),
    'versions': {
      'jax': jax.__version__,
      'jaxlib': jaxlib.__version__,
      'python': platform.python_version(),
      'code': workdir_lib.code_version(),
    },
    'date': datetime.date.today().isoformat(),
  }
