"""What is measured on a model in training: one row of numbers per call."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_interp.models import GPT
from sparse_interp.sparsity import schedules, statistics
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import sharding
from sparse_interp.training import state as state_lib


class Measure:
  """Rows of metrics: schedules, counts on the weights, validation loss."""

  def __init__(
    self, plan: plan_lib.Plan, model: GPT, mesh: Any, validation: list[Any]
  ):
    self._targets = plan.targets
    self._rate = plan.learning_rate
    self._density = schedules.hidden_density(plan.schedule)
    self._validation = [sharding.put_batch(mesh, rows) for rows in validation]

    def count(params):
      nonzeros = statistics.nonzero_counts(params)
      return {
        'nonzeros': {name: nonzeros[name] for name in plan.targets},
        'dead_neurons': statistics.dead_neurons(params),
        'dead_attention_channels': statistics.dead_attention_channels(params),
      }

    self._count = jax.jit(count)
    self._loss = jax.jit(
      lambda params, tokens: state_lib.next_token_loss(model, params, tokens)
    )

  def row(
    self,
    step: int,
    numbers: Mapping[str, Any],
    state: state_lib.TrainState,
    validate: bool,
  ) -> dict[str, float | int]:
    """The row after `step` updates; rate and density are the last update's.

    Raises:
      ValueError: a tensor has not as many nonzeros as were asked for.
    """
    params = state.params
    counts = jax.device_get(self._count(params))
    self._check(step, state, counts['nonzeros'])
    row = {
      'step': step,
      'train_loss': float(numbers['train_loss']),
      'learning_rate': float(self._rate[step - 1]),
      'density': float(self._density[step - 1]),
      'gradient_rms': float(numbers['gradient_rms']),
      'mask_churn': float(numbers['mask_churn']),
      'nonzeros': int(sum(counts['nonzeros'].values())),
      'dead_neurons': int(counts['dead_neurons']),
      'dead_attention_channels': int(counts['dead_attention_channels']),
    }
    if validate and self._validation:
      losses = [float(self._loss(params, rows)) for rows in self._validation]
      row['validation_loss'] = float(np.mean(losses))
    return row

  def _check(
    self, step: int, state: state_lib.TrainState, found: Mapping[str, Any]
  ) -> None:
    """Compares the nonzeros of every sparse tensor with what was asked for."""
    vacant = jax.device_get(optax.tree.get(state.opt_state, 'vacant'))
    asked = statistics.asked_counts(state.params, self._targets, step - 1)
    tensors = statistics.named_tensors(state.params)
    for name in self._targets:
      # Where all are kept, a weight may be zero by chance, and is not dropped.
      chosen = asked[name] < tensors[name].size
      wrong = chosen and found[name] + vacant[name] != asked[name]
      # What is not finite is another fault, and named as such.
      if wrong and bool(jnp.isfinite(tensors[name]).all()):
        raise ValueError(
          f'{name} must have exactly {asked[name]} nonzero weights after step '
          f'{step}, got {found[name]} (and {vacant[name]} kept ones that are '
          'zero): the projection is wrong on this machine; report it with the '
          'versions of jax and jaxlib, and do not use this model.'
        )


def nonzeros(params: Any, plan: plan_lib.Plan) -> dict[str, dict[str, int]]:
  """Per tensor: nonzeros asked for, nonzeros found, and size."""
  asked = statistics.asked_counts(params, plan.targets)
  found = jax.device_get(jax.jit(statistics.nonzero_counts)(params))
  return {
    name: {
      'asked': asked[name],
      'found': int(found[name]),
      'size': int(tensor.size),
    }
    for name, tensor in statistics.named_tensors(params).items()
  }
