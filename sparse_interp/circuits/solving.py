"""Does the full model solve a task? Its loss, and what it answers at all."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sparse_interp.circuits import intervals
from sparse_interp.circuits.counting import Count
from sparse_interp.circuits.gating.gated_model import (
  GatedModel,
  all_outputs,
  full_batches,
  run,
)
from sparse_interp.circuits.gating.losses import pair_losses
from sparse_interp.circuits.gating.task_loss import Pairs


def evaluate_model(
  model: GatedModel,
  pairs: Pairs,
  conditions: Sequence[str],
  seed: int,
  count: Count | None = None,
) -> dict[str, Any]:
  """Task loss of the full model, over all pairs and per condition.

  Args:
    model: the model; its ablation plays no part.
    pairs: test pairs.
    conditions: of each pair.
    seed: of the bootstrap.
    count: called as count(done, in all) now and then.

  Returns:
    {'full_loss', 'full_probability', their intervals, 'full_accuracy',
    'full_conditions'}; accuracy is the share of prompts whose own answer has
    the larger logit.
  """
  differences = all_outputs(model, {}, pairs, count=count)
  losses = np.asarray(pair_losses(differences))
  return {
    **mean_of('full_loss', losses, seed),
    **mean_of('full_probability', answer_probabilities(model, pairs), seed),
    'full_accuracy': float(np.mean(differences * [1, -1] > 0)),
    'full_conditions': by_condition(losses, conditions),
  }


def answer_probabilities(
  model: GatedModel, pairs: Pairs
) -> Float[np.ndarray, 'pairs']:
  """Full model's probability of the right answer, mean over both prompts."""
  model, found = model.under('mean'), []
  for part, key in full_batches(pairs):
    found.append(np.asarray(_probabilities(model, part, key)))
  return np.concatenate(found)[: pairs.size]


@jax.jit
def _probabilities(model, pairs, key):
  logits, _ = run(model, {}, pairs, key)
  by_prompt = jax.nn.softmax(logits).reshape(pairs.answers.shape[0], 2, -1)
  right = jnp.take_along_axis(by_prompt, pairs.answers[:, :, None], axis=2)
  return jnp.mean(right[..., 0], axis=1)


def on_pairs(model: GatedModel, pairs: Pairs) -> tuple[float, float]:
  """Loss of the full model, and what it gives the right answer of all tokens.

  A model may know which of two answers is likelier without ever giving either:
  that is a fact about two logits, and no behaviour.
  """
  losses = pair_losses(all_outputs(model, {}, pairs))
  probabilities = answer_probabilities(model, pairs)
  return float(np.mean(losses)), float(np.mean(probabilities))


def by_condition(losses, conditions):
  """Mean loss of the pairs of each condition."""
  return {
    name: float(losses[np.asarray(conditions) == name].mean())
    for name in sorted(set(conditions))
  }


def mean_of(
  name: str, values: Float[np.ndarray, 'pairs'], seed: int
) -> dict[str, Any]:
  """{name: mean over pairs, name_interval: its 95 % interval}."""
  return {
    name: float(values.mean()),
    f'{name}_interval': intervals.of_mean(values, seed),
  }
