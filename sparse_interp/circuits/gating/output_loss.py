"""Sequences whose outputs are known: the task of a compiled program.

The loss is the squared distance of the outputs from the recorded ones, divided
by their variance: 0 is a perfect copy, 1 is as good as their mean.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from sparse_interp.circuits.gating.batch import rows

OUTPUT_LOSS = (
  'mean over sequences of the squared distance from the recorded outputs, mean '
  'over positions after the first, divided by the variance of those outputs'
)


class Recorded(NamedTuple):
  """Sequences and the outputs that a circuit has to reproduce.

  Attributes:
    tokens: ids, the first being the start of the sequence, padded on the
      right.
    lengths: tokens of each sequence.
    targets: outputs of the full model.
    variance: of the outputs at positions that count, summed over columns.
  """

  tokens: Int[Array, 'sequences time']
  lengths: Int[Array, 'sequences']
  targets: Float[Array, 'sequences time width']
  variance: Float[Array, 'sequences']

  @property
  def size(self) -> int:
    """Number of sequences."""
    return self.lengths.shape[0]

  def take(self, indices: Int[np.ndarray | Array, 'chosen']) -> 'Recorded':
    """The sequences at `indices`."""
    return rows(self, indices)

  def inputs(self) -> dict[str, Any]:
    """Arguments of a model call."""
    return {'tokens': self.tokens, 'lengths': self.lengths}

  def visible(self) -> Bool[Array, 'sequences time']:
    """Positions that hold a sequence, its start included."""
    return jnp.arange(self.tokens.shape[1]) < self.lengths[:, None]

  def with_full(self, outputs: Callable[[], Any]) -> 'Recorded':
    """The same: the targets are the full model's outputs already."""
    del outputs
    return self

  def read(
    self, logits: Float[Array, 'sequences time width']
  ) -> Float[Array, 'sequences time width']:
    """All outputs."""
    return logits

  def losses(
    self,
    outputs: Float[Array | np.ndarray, 'sequences time width'],
    scale: Float[Array, ''] | float = 1.0,
    shift: Float[Array, ''] | float = 0.0,
    kl_weight: Float[Array, ''] | float = 0.0,
  ) -> Float[Array, 'sequences']:
    """Squared distance of each sequence; there is nothing to calibrate."""
    del scale, shift, kl_weight
    error = jnp.sum(jnp.square(outputs - self.targets), axis=-1)
    counts = counted(self.tokens, self.lengths)
    total = jnp.sum(jnp.where(counts, error, 0), axis=1)
    return total / jnp.sum(counts, axis=1) / self.variance

  def calibrate(
    self, outputs: Any, most_shift: float | None = None
  ) -> tuple[float, float]:
    """Scale 1 and shift 0: outputs are compared as they are."""
    del outputs, most_shift
    return 1.0, 0.0

  def partners(
    self, kind: str, key: Key[Array, '']
  ) -> tuple[dict[str, Any], Int[Array, 'sequences time']]:
    """Other sequences, see `task_loss.Pairs.partners`; aligned at the start.

    Raises:
      ValueError: for 'counterfactual': these sequences are not pairs.
    """
    if kind != 'resample':
      raise ValueError(
        f'ablation must be resample or a constant for sequences, got {kind!r}; '
        'only pairs of prompts have a counterfactual.'
      )
    order = jax.random.permutation(key, self.lengths.shape[0])
    lengths = self.lengths[order]
    time = jnp.arange(self.tokens.shape[1])
    positions = jnp.minimum(time, lengths[:, None] - 1)
    return {'tokens': self.tokens[order], 'lengths': lengths}, positions


def counted(
  tokens: Int[Array | np.ndarray, 'sequences time'],
  lengths: Int[Array | np.ndarray, 'sequences'],
) -> Bool[Array, 'sequences time']:
  """Positions that count: neither the start of a sequence nor padding."""
  time = jnp.arange(tokens.shape[1])
  return (time > 0) & (time < lengths[:, None])


def make_recorded(
  tokens: Int[np.ndarray, 'sequences time'],
  lengths: Int[np.ndarray, 'sequences'],
  targets: Float[np.ndarray | Array, 'sequences time width'],
) -> Recorded:
  """Device arrays with the variance of the outputs that count."""
  chosen = np.asarray(targets, np.float64)[np.asarray(counted(tokens, lengths))]
  variance = np.sum(np.var(chosen, axis=0))
  return Recorded(
    jnp.asarray(tokens, jnp.int32),
    jnp.asarray(lengths, jnp.int32),
    jnp.asarray(targets, jnp.float32),
    jnp.full(len(lengths), variance, jnp.float32),
  )
