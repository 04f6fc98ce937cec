"""What is measured on a model in training: one row of numbers per call."""

from typing import Any

import jax
import numpy as np

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
    self._rate = plan.learning_rate
    self._density = schedules.hidden_density(plan.schedule)
    self._validation = [sharding.put_batch(mesh, rows) for rows in validation]
    names = tuple(plan.targets)
    self._count = jax.jit(
      lambda params: {
        'nonzeros': statistics.total_nonzeros(params, names),
        'dead_neurons': statistics.dead_neurons(params),
        'dead_attention_channels': statistics.dead_attention_channels(params),
      }
    )
    self._loss = jax.jit(
      lambda params, tokens: state_lib.next_token_loss(model, params, tokens)
    )

  def row(
    self, step: int, numbers: dict[str, Any], params: Any, validate: bool
  ) -> dict[str, float | int]:
    """The row after `step` updates; rate and density are the last update's."""
    row = {
      'step': step,
      'train_loss': float(numbers['train_loss']),
      'learning_rate': float(self._rate[step - 1]),
      'density': float(self._density[step - 1]),
      'gradient_rms': float(numbers['gradient_rms']),
      'mask_churn': float(numbers['mask_churn']),
    }
    row |= {name: int(n) for name, n in self._count(params).items()}
    if validate and self._validation:
      losses = [float(self._loss(params, rows)) for rows in self._validation]
      row['validation_loss'] = float(np.mean(losses))
    return row
