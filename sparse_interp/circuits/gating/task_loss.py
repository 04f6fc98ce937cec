"""Pairs of prompts as arrays, and what a model's answer to them is worth.

Only the difference between the two answers' logits at one position matters, so
this is all that pruning and evaluation compute of a model's output. Another
kind of task is in `output_loss`; both are a `batch.Batch`, which is all that
`gated_model` and pruning know of a task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from sparse_interp.circuits.gating import calibration
from sparse_interp.circuits.gating.batch import rows
from sparse_interp.circuits.gating.losses import (
  Scalar,
  kl_losses,
  pair_losses,
)
from sparse_interp.tasks.encoding import EncodedTask


class Pairs(NamedTuple):
  """Pairs of prompts as arrays.

  Attributes:
    tokens: ids of prompts a and b, padded on the right.
    last: index of the last prompt token.
    answers: first token of the answer to a and of the answer to b.
    full: answer logit differences of the full model, for losses with a KL
      part (`gated_model.add_full`); None until then.
  """

  tokens: Int[Array, 'pairs 2 time']
  last: Int[Array, 'pairs 2']
  answers: Int[Array, 'pairs 2']
  full: Float[Array, 'pairs 2'] | None = None

  @property
  def size(self) -> int:
    """Number of pairs."""
    return self.last.shape[0]

  def take(self, indices: Int[np.ndarray | Array, 'chosen']) -> 'Pairs':
    """The pairs at `indices`."""
    return rows(self, indices)

  def inputs(self) -> dict[str, Any]:
    """Arguments of a model call: tokens and the positions that answer."""
    tokens = self.tokens.reshape(-1, self.tokens.shape[2])
    return {'tokens': tokens, 'positions': self.last.reshape(-1)}

  def visible(self) -> Bool[Array, 'prompts time']:
    """Positions that hold a prompt, not padding."""
    return jnp.arange(self.tokens.shape[2]) <= self.last.reshape(-1)[:, None]

  def with_full(
    self, outputs: Callable[[], Float[Array | np.ndarray, 'pairs 2']]
  ) -> 'Pairs':
    """The pairs with the full model's answers, for losses with a KL part."""
    return self._replace(full=jnp.asarray(outputs()))

  def read(
    self, logits: Float[Array, 'prompts vocab']
  ) -> Float[Array, 'pairs 2']:
    """Logit of a's answer minus that of b's, on both prompts of each pair."""
    by_prompt = logits.reshape(self.answers.shape[0], 2, -1)
    chosen = jnp.take_along_axis(by_prompt, self.answers[:, None, :], axis=2)
    return chosen[..., 0] - chosen[..., 1]

  def losses(
    self,
    outputs: Float[Array | np.ndarray, 'pairs 2'],
    scale: Float[Array, ''] | float = 1.0,
    shift: Float[Array, ''] | float = 0.0,
    kl_weight: Float[Array, ''] | float = 0.0,
  ) -> Float[Array, 'pairs']:
    """(1 - kl_weight) * task loss + kl_weight * KL, for each pair."""
    task = pair_losses(outputs, scale, shift)
    if self.full is None:
      return task
    kl = kl_losses(outputs, self.full, scale, shift)
    return (1 - kl_weight) * task + kl_weight * kl

  def calibrate(
    self,
    outputs: Float[Array | np.ndarray, 'pairs 2'],
    most_shift: float | None = None,
  ) -> tuple[Scalar, Scalar]:
    """Scale and shift of the outputs that suit these pairs best.

    Args:
      outputs: answer logit differences.
      most_shift: of a bounded fit, see `calibration`; None for a free one.
    """
    if most_shift is None:
      return calibration.fit(outputs)
    return calibration.fit_bounded(outputs, most_shift)

  def partners(
    self, kind: str, key: Key[Array, '']
  ) -> tuple[dict[str, Any], Int[Array, 'prompts time']]:
    """Other prompts, whose activations removed parts take.

    Args:
      kind: 'counterfactual': the other prompt of the pair; 'resample': a
        random prompt of these pairs.
      key: of the random order.

    Returns:
      Arguments of a model call, and the position there that stands for each
      position here: prompts are aligned at their last tokens.
    """
    tokens, last = self.tokens, self.last
    if kind == 'counterfactual':
      tokens, last = tokens[:, ::-1], last[:, ::-1]
    tokens, last = tokens.reshape(-1, tokens.shape[2]), last.reshape(-1)
    if kind == 'resample':
      order = jax.random.permutation(key, last.shape[0])
      tokens, last = tokens[order], last[order]
    time = jnp.arange(tokens.shape[1])
    moved = time + (last - self.last.reshape(-1))[:, None]
    return {'tokens': tokens}, jnp.clip(moved, 0, tokens.shape[1] - 1)


def make_pairs(task: EncodedTask, multiple: int = 64) -> Pairs:
  """Device arrays of a task, without columns that are padding everywhere.

  Args:
    task: encoded pairs.
    multiple: the length is rounded up to a multiple of this (and at most its
      own), so that tasks share few shapes and the model few compilations.
  """
  longest = int(np.max(task.last)) + 1
  length = min(-(-longest // multiple) * multiple, task.tokens.shape[2])
  return Pairs(
    jnp.asarray(task.tokens[:, :, :length], jnp.int32),
    jnp.asarray(task.last, jnp.int32),
    jnp.asarray(task.answers, jnp.int32),
  )
