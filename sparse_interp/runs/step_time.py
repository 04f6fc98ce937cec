"""The price of a training step: sparse, dense, and the same recipe in torch.

All steps train from the same weights on the same random tokens in one process.
They take turns, so that a slow moment of the machine hits all; each runs twice,
the first time untimed, so that none pays for what the one before left. `dense`
has density 1 everywhere, no projection and no AbsTopK. The torch steps are of
the file that the configuration names, where torch is installed.
"""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from sparse_interp.benchmarks.about import about
from sparse_interp.benchmarks.case import AbsentError
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPT
from sparse_interp.runs.torch_step import torch_step
from sparse_interp.training import (
  free_memory,
  hosts,
  metrics,
  optimizer,
  ranges,
)
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib

_PHASE = 'step_time'
STEPS = ('sparse', 'dense', 'torch', 'torch_compiled')

# Makes one update and returns its loss once it is there.
Step = Callable[[], float]


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Times the steps and writes step_time.json.

  Args:
    config: see experiments/benchmarks/step_time.py.
    workdir: receives step_time.json.

  Returns:
    The content of step_time.json.

  Raises:
    ValueError: a field of the configuration is wrong.
  """
  _check(config)
  facts = about(workdir_lib.code_version())
  machine = {k: facts[k] for k in ('device', 'processor', 'versions')}
  asked = config.to_dict() | {'machine': machine}
  with hosts.claimed(workdir, asked, _PHASE):
    return _time(config, pathlib.Path(workdir))


def _time(
  config: config_dict.ConfigDict, workdir: pathlib.Path
) -> dict[str, Any]:
  begun = time.monotonic()
  steps, absent = {}, {}
  for name in config.steps:
    try:
      steps[name] = _make(name, config)
      loss = steps[name]()  # compiles and warms up
    except AbsentError as reason:
      steps.pop(name, None)
      absent[name] = str(reason)
      metrics.say(_PHASE, f'{name} is absent: {reason}')
      continue
    metrics.say(_PHASE, f'{name} is ready, first loss {loss:.5f}')
  seconds = _take_turns(config, steps, begun)
  result = _result(config, seconds, absent)
  path = workdir / 'step_time.json'
  workdir_lib.write_json(path, result)
  for name, found in result['steps'].items():
    metrics.say(
      _PHASE,
      f'{name} {found["median_ms"]:.1f} ms, '
      f'{found["tokens_per_second"]:.0f} tokens/s',
    )
  metrics.say(_PHASE, f'ratios of medians: {result["ratios"]}; {path}')
  return result


def _check(config: config_dict.ConfigDict) -> None:
  ranges.check_whole(config, {'repetitions': 1})
  ranges.check_number(config, 'budget', least=0)
  ranges.check_number(config, 'peak_flops', least=0)
  ranges.check_text(config, 'torch_recipe', optional=True)
  plan_lib.make_plan(config)
  for name in config.steps:
    if name not in STEPS:
      raise ValueError(
        f'steps must be among {", ".join(STEPS)}, got {name!r}; remove it.'
      )


def _take_turns(
  config: config_dict.ConfigDict, steps: dict[str, Step], begun: float
) -> dict[str, list[float]]:
  """Seconds of every step in every round, as long as there is time."""
  seconds = {name: [] for name in steps}
  first = time.monotonic()
  for i in range(config.repetitions):
    for name, step in steps.items():
      step()  # threads of the one before come to rest, and memory goes back
      started = time.perf_counter()
      step()
      seconds[name].append(time.perf_counter() - started)
    spent = time.monotonic() - first
    left = spent / (i + 1) * (config.repetitions - i - 1)
    metrics.say(
      _PHASE,
      f'round {i + 1}/{config.repetitions}, {metrics.duration(left)} left',
    )
    if time.monotonic() - begun > config.budget:
      metrics.say(_PHASE, f'budget of {config.budget:.0f} s spent')
      break
  return seconds


def _make(name: str, config: config_dict.ConfigDict) -> Step:
  plan = plan_lib.make_plan(
    _dense_twin(config) if name == 'dense' else config,
    free_memory.of_devices(),
  )
  shape = (config.data.batch_size, config.data.length)
  tokens = jax.random.randint(
    jax.random.key(config.seed), shape, 0, config.data.vocab_size
  )
  if name.startswith('torch'):
    return torch_step(config, plan, tokens, compiled=name == 'torch_compiled')
  return _jax_step(plan, tokens, config.seed)


def _jax_step(plan: plan_lib.Plan, tokens: Any, seed: int) -> Step:
  """The step of the pretrain run; a density of 1 needs no projection."""
  model = GPT(plan.model, plan.products)
  targets = {} if plan.schedule.density == 1 else plan.targets
  transform = optimizer.make_optimizer(
    plan.optimizer, plan.learning_rate, targets
  )
  state = jax.jit(state_lib.make_init(model, transform))(jax.random.key(seed))
  update = jax.jit(
    state_lib.make_train_step(
      model, transform, tuple(targets), plan.regrow_every
    ),
    donate_argnums=0,
  )

  def step() -> float:
    nonlocal state
    state, numbers = jax.block_until_ready(update(state, tokens))
    return float(numbers['train_loss'])

  return step


def _dense_twin(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  twin = config_dict.ConfigDict(config.to_dict())
  with twin.ignore_type():
    twin.model.activation_density = None
    twin.sparsity.density = 1.0
    twin.sparsity.block = None
    twin.sparsity.products = 'dense'
    twin.sparsity.regrow_every = None
  return twin


def flops_per_step(config: config_dict.ConfigDict) -> float:
  """Operations of forward and backward as if all were dense.

  Two per weight and token and as many for each of the two gradients; the same
  for the two products of attention, of which causality leaves half.
  """
  model = plan_lib.model_config(config)
  width, attn = model.d_model, model.d_attn
  block = 4 * width * attn + 2 * width * model.mlp_width
  weights = model.n_layer * block + width * model.output_width
  mixing = model.n_layer * attn * config.data.length
  tokens = config.data.batch_size * config.data.length
  return 6.0 * tokens * (weights + mixing)


def _result(
  config: config_dict.ConfigDict,
  seconds: dict[str, list[float]],
  absent: dict[str, str],
) -> dict[str, Any]:
  """What is written: medians, spread, ratios and where it was measured."""
  tokens = config.data.batch_size * config.data.length
  flops = flops_per_step(config)
  steps: dict[str, dict[str, Any]] = {}
  for name, values in seconds.items():
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    steps[name] = {
      'median_ms': median * 1e3,
      'quartiles_ms': [low * 1e3, high * 1e3],
      'tokens_per_second': tokens / median,
      'dense_flops_per_second': flops / median,
      'repetitions': len(values),
    }
    if config.peak_flops:
      steps[name]['utilisation'] = flops / median / config.peak_flops
  ours = steps.get('sparse')
  ratios = {
    f'{name} / sparse': round(float(found['median_ms'] / ours['median_ms']), 4)
    for name, found in steps.items()
    if ours and name != 'sparse'
  }
  return {
    'about': about(workdir_lib.code_version()),
    'steps': steps,
    'ratios': ratios,
    'absent': absent,
    'dense_flops_per_step': flops,
    'config': config.to_dict(),
  }
