"""Losses of a pair of prompts, from the logit differences of its answers.

With d = logit(answer of a) - logit(answer of b) at the last token, the model
gives the answer of a the probability sigmoid(d) among the two. All losses are
in nats; ln 2 = 0.69 is a coin toss.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TASK_LOSS = (
  'mean over pairs and both prompts of the cross-entropy between the two '
  'answers at the last token, in nats'
)
KL_LOSS = (
  'mean over pairs and both prompts of KL(full model || circuit) between the '
  'distributions over the two answers at the last token, in nats'
)

Scalar = Float[Array, ''] | float


@jax.jit
def pair_losses(
  differences: Float[Array | np.ndarray, '*pairs 2'],
  scale: Scalar = 1.0,
  shift: Scalar = 0.0,
) -> Float[Array, '*pairs']:
  """Task loss of each pair, the mean over its prompts.

  The two-way cross-entropy is softplus(-d) on prompt a and softplus(d) on
  prompt b (published stored losses are the sum of both).

  Args:
    differences: d on prompts a and b.
    scale: multiplies d.
    shift: is added to scale * d.
  """
  calibrated = scale * differences + shift
  signs = jnp.array([-1.0, 1.0])
  return jnp.mean(jax.nn.softplus(signs * calibrated), axis=-1)


@jax.jit
def kl_losses(
  differences: Float[Array | np.ndarray, '*pairs 2'],
  full: Float[Array | np.ndarray, '*pairs 2'],
  scale: Scalar = 1.0,
  shift: Scalar = 0.0,
) -> Float[Array, '*pairs']:
  """KL(full || circuit) over the two answers, mean over a pair's prompts.

  Args:
    differences: d of the circuit on prompts a and b.
    full: d of the full model.
    scale: multiplies the circuit's d.
    shift: is added to it.
  """
  calibrated = scale * differences + shift
  p = jax.nn.sigmoid(full)
  # p log p/q + (1 - p) log (1 - p)/(1 - q) with log q = -softplus(-d).
  cross = jax.nn.softplus(calibrated) - p * calibrated
  entropy = jax.nn.softplus(full) - p * full
  return jnp.mean(cross - entropy, axis=-1)
