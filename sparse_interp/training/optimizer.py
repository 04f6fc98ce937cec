"""The published optimizer as one optax chain.

    gradient / its global RMS  ->  Adam  ->  -rate  ->  projection  ->  decay

The decay multiplies what the projection left, so zeros stay zero. It differs
from AdamW only in that order and in what it leaves out. Paper section A.1 and
the published training script, which divides where the paper clips.

The step number is not kept here a second time: Adam's count is the one copy
(`step_of`), and the transforms that look something up per step receive it as
the keyword `step` of `update`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from sparse_interp.sparsity import projection, rules

GRADIENT_RMS = ('normalise', 'clip', 'none')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Constants of the update.

  Attributes:
    beta1: decay of Adam's first moment.
    beta2: decay of Adam's second moment.
    eps: added to the root of the second moment; 0.1 is large on purpose and
      makes sense because gradients are scaled to RMS near 1.
    weight_decay: share of a weight removed per step, times the rate.
    gradient_rms: 'normalise' divides by RMS + 1e-5, up or down (published
      script); 'clip' divides only where RMS > 1 (paper); 'none' leaves it.
  """

  beta1: float = 0.9
  beta2: float = 0.95
  eps: float = 0.1
  weight_decay: float = 0.1
  gradient_rms: str = 'normalise'

  def __post_init__(self):
    for name in ('beta1', 'beta2'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(
          f'optimizer.{name} must be in [0, 1), got {getattr(self, name)}; '
          'choose e.g. 0.9.'
        )
    if not self.eps > 0:
      raise ValueError(
        f'optimizer.eps must be positive, got {self.eps}; choose e.g. 0.1.'
      )
    if not self.weight_decay >= 0:
      raise ValueError(
        f'optimizer.weight_decay must be 0 or more, got {self.weight_decay}; '
        'choose e.g. 0.1.'
      )
    if self.gradient_rms not in GRADIENT_RMS:
      raise ValueError(
        f'optimizer.gradient_rms must be one of {GRADIENT_RMS}, got '
        f"{self.gradient_rms!r}; choose e.g. 'normalise'."
      )


def root_mean_square(tree: Any) -> Float[Array, '']:
  """Root of the mean square over all entries of all tensors of the tree."""
  size = sum(leaf.size for leaf in jax.tree.leaves(tree))
  return optax.tree.norm(tree) / np.sqrt(size).astype(np.float32)


def scale_gradient(how: str) -> optax.GradientTransformation:
  """Divides the gradient by its RMS over all parameters; see `how` above."""

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    del params
    if how == 'none':
      return updates, state
    rms = root_mean_square(updates)
    divisor = rms + 1e-5 if how == 'normalise' else jnp.maximum(rms, 1.0)
    return jax.tree.map(lambda g: g / divisor, updates), state

  return optax.GradientTransformation(optax.init_empty_state, update)


def look_up(table: Float[np.ndarray, ' updates'], step: Any) -> Any:
  """The float32 entry of a float64 table; past the end the last one."""
  return jnp.asarray(table, jnp.float32)[step]


def scale_by_table(
  table: Float[np.ndarray, ' updates'],
) -> optax.GradientTransformationExtraArgs:
  """Multiplies by minus the learning rate of the update number `step`."""

  def update(
    updates: Any, state: Any, params: Any = None, **extra: Any
  ) -> tuple[Any, Any]:
    del params
    rate = look_up(table, extra['step'])
    return jax.tree.map(lambda u: -rate * u, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def is_decayed(name: str, leaf: Any) -> bool:
  """Matrices decay, but not the bigram table; vectors do not."""
  return leaf.ndim > 1 and name != 'bigram_table'


def decay_what_is_left(
  weight_decay: float, table: Float[np.ndarray, ' updates']
) -> optax.GradientTransformationExtraArgs:
  """Shrinks the weights that the update lands on: p *= 1 - decay * rate."""

  def update(
    updates: Any, state: Any, params: Any = None, **extra: Any
  ) -> tuple[Any, Any]:
    shrink = weight_decay * look_up(table, extra['step'])

    def decay(name: str, weight: Array, move: Array) -> Array:
      if not is_decayed(name, weight):
        return move
      return move - shrink * (weight + move)

    names = rules.tensor_names(params)
    return jax.tree.map(decay, names, params, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def make_optimizer(
  config: OptimizerConfig,
  learning_rate: Float[np.ndarray, ' updates'],
  targets: Mapping[str, rules.Target],
) -> optax.GradientTransformationExtraArgs:
  """Chains the published update.

  Args:
    config: constants.
    learning_rate: rate per update (`schedules.learning_rate`).
    targets: what the projection keeps (`rules.make_targets`).

  Returns:
    A transform; call `update(grads, state, params, step=step_of(state))`.
  """
  return optax.chain(
    scale_gradient(config.gradient_rms),
    optax.scale_by_adam(config.beta1, config.beta2, config.eps),
    scale_by_table(learning_rate),
    projection.keep_largest_weights(targets),
    decay_what_is_left(config.weight_decay, learning_rate),
  )


def step_of(opt_state: Any) -> Any:
  """Number of updates made so far: the int32 count that Adam keeps."""
  return optax.tree.get(opt_state, 'count')
