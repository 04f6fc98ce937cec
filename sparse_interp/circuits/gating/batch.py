"""What a task must be able to do for circuits to be found for it.

Pairs of prompts (`task_loss`) and recorded sequences (`output_loss`) can.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from sparse_interp.circuits.gating.losses import Scalar

Outputs = Float[Array | np.ndarray, 'size ...']


@runtime_checkable
class Batch(Protocol):
  """Pairs or sequences as arrays, and what a model's outputs are worth.

  It is a pytree, so that it can be an argument of a compiled function.
  """

  @property
  def tokens(self) -> Int[Array, 'size ...']:
    """Ids of all prompts, padded on the right."""
    ...

  @property
  def size(self) -> int:
    """Number of pairs or sequences."""
    ...

  def take(self, indices: Int[np.ndarray | Array, 'chosen']) -> 'Batch':
    """Those at `indices`."""
    ...

  def inputs(self) -> dict[str, Any]:
    """Arguments of a model call."""
    ...

  def visible(self) -> Bool[Array, 'prompts time']:
    """Positions that hold a prompt, not padding."""
    ...

  def read(self, logits: Float[Array, '...']) -> Float[Array, 'size ...']:
    """What counts of the logits."""
    ...

  def losses(
    self,
    outputs: Outputs,
    scale: Scalar = 1.0,
    shift: Scalar = 0.0,
    kl_weight: Scalar = 0.0,
  ) -> Float[Array, 'size']:
    """Loss of each pair or sequence, in nats or in shares of the variance."""
    ...

  def calibrate(
    self, outputs: Outputs, most_shift: float | None = None
  ) -> tuple[Scalar, Scalar]:
    """Scale and shift under which the outputs lose the least.

    Args:
      outputs: what the batch has read.
      most_shift: of a bounded fit, see `calibration`; None for a free one.
    """
    ...

  def partners(
    self, kind: str, key: Key[Array, '']
  ) -> tuple[dict[str, Any], Int[Array, 'prompts time']]:
    """Other prompts, and which of their positions stands for each of ours.

    Raises:
      ValueError: if this task has no partners of that kind.
    """
    ...

  def with_full(self, outputs: Callable[[], Outputs]) -> 'Batch':
    """The same with the full model's outputs, where losses ask for them."""
    ...


@jax.jit
def rows(batch: Batch, indices: Int[Array, 'chosen']) -> Batch:
  """Rows of every array of a batch; compiled, since searches ask for many."""
  return jax.tree.map(lambda array: array[indices], batch)
