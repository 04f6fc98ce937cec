"""The torch step that ours is compared with, from a file outside the package.

The package needs no torch; a configuration names the file with the recipe.
"""

import importlib.util
import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int
from ml_collections import config_dict

from sparse_interp.benchmarks import competitors
from sparse_interp.benchmarks.case import AbsentError
from sparse_interp.models import GPT
from sparse_interp.models.config import ACTIVATION_SITES
from sparse_interp.sparsity import rules
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib


def load_recipe(path: str) -> ModuleType:
  """Imports the file with the recipe.

  Raises:
    AbsentError: torch is not installed, or the configuration names no file.
    ValueError: there is no such file.
  """
  competitors.module('torch')
  if not path:
    raise AbsentError('the configuration names no file with the recipe')
  spec = None
  if pathlib.Path(path).is_file():
    spec = importlib.util.spec_from_file_location('torch_recipe', path)
  if spec is None or spec.loader is None:
    raise ValueError(
      f'torch_recipe must be a Python file, got {path!r}; choose '
      'experiments/benchmarks/torch_recipe.py.'
    )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def recipe_of(module: ModuleType, plan: plan_lib.Plan) -> Any:
  """The `Recipe` of a plan.

  Raises:
    AbsentError: the recipe does not know what the plan asks for.
  """
  model = plan.model
  widths = {'mlp_neuron': model.mlp_width}
  widths |= dict.fromkeys(('attn_q', 'attn_k', 'attn_v'), model.d_attn)
  known = (
    model.norm == 'rms'
    and model.position == 'none'
    and model.activation == 'gelu'
    and not model.tied_unembed
    and plan.optimizer.gradient_rms == 'normalise'
  )
  if not known:
    raise AbsentError('the recipe has only the published choices')
  return module.Recipe(
    model={
      'n_layer': model.n_layer,
      'n_heads': model.n_heads,
      'd_head': model.d_head,
      'kept': {
        site: model.kept_activations(site, widths.get(site, model.d_model))
        for site in ACTIVATION_SITES
      },
      'norm_epsilon': model.norm_epsilon,
      'bigram_table': model.bigram_table,
      'dtype': model.dtype,
    },
    learning_rate=plan.learning_rate,
    counts={
      name: np.atleast_1d(target.counts)
      for name, target in plan.targets.items()
    },
    alive={
      name: (target.alive_axis, target.minimum_alive)
      for name, target in plan.targets.items()
      if target.minimum_alive
    },
    beta1=plan.optimizer.beta1,
    beta2=plan.optimizer.beta2,
    eps=plan.optimizer.eps,
    weight_decay=plan.optimizer.weight_decay,
  )


def initial_params(plan: plan_lib.Plan, seed: int) -> dict[str, np.ndarray]:
  """The weights that our step starts from, by tensor name."""
  params = jax.jit(lambda key: state_lib.init_params(GPT(plan.model), key))(
    jax.random.key(seed)
  )
  names = jax.tree.leaves(rules.tensor_names(params))
  leaves = jax.tree.leaves(params)
  return {
    name: np.array(leaf) for name, leaf in zip(names, leaves, strict=True)
  }


def torch_step(
  config: config_dict.ConfigDict,
  plan: plan_lib.Plan,
  tokens: Int[Array, 'batch time'],
  compiled: bool,
) -> Callable[[], float]:
  """A function that makes one update and returns its loss.

  Raises:
    AbsentError: there is no torch, it has no such device, or it cannot compile.
  """
  module = load_recipe(config.torch_recipe)
  torch, device = module.torch, competitors.torch_device()
  trainer = module.Trainer(
    recipe_of(module, plan), initial_params(plan, config.seed), device, compiled
  )
  rows = torch.tensor(np.array(tokens), dtype=torch.int64, device=device)
  if device == 'cuda' and plan.model.dtype == 'float32':
    # As XLA does by default.
    torch.set_float32_matmul_precision('high')

  def step() -> float:
    try:
      return float(trainer.step(rows))
    except Exception as error:
      # Compilers fail in many ways, and a competitor must not end the run.
      if not compiled:
        raise
      reason = str(error).strip().splitlines() or [type(error).__name__]
      raise AbsentError(f'torch.compile: {reason[0]}') from error

  return step
