"""Scale and shift of answer logits, fitted by L-BFGS; free or bounded.

Removing nodes shrinks what reaches the unembedding, so a circuit may know the
answer and say it too softly. The published method fits a scale and a shift of
the final logits in 16 L-BFGS steps (arXiv 2511.13653, section A.5), without
stating scope or objective. The two-way task loss sees a logit difference only,
so here one scale and one shift act on the difference between the answers of a
pair, a against b, and the training task loss is the objective.

A free fit can make a confident answer of next to nothing, by a scale of 70,
say. A bounded one cannot: the scale stays within SCALES, and the shift of a
circuit within what would centre the full model's own differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from sparse_interp.circuits.gating.losses import pair_losses

CALIBRATION_STEPS = 16

# Smallest and largest scale of a bounded fit.
SCALES = (0.25, 4.0)

# A circuit that makes no mistake on the pairs at hand would ask for an
# infinite scale; this much pull towards (1, 0) keeps it finite.
_PULL = 1e-3


# Pairs are padded to a multiple of this, so that every call runs one program.
_ROWS = 256


def fit(
  differences: Float[Array | np.ndarray, 'pairs 2'],
  steps: int = CALIBRATION_STEPS,
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Fits (scale, shift) to the task loss by L-BFGS.

  The scale is exp of what is fitted: it stays positive, so that calibration
  can never turn a circuit's preference around.

  Args:
    differences: answer logit differences of training pairs.
    steps: L-BFGS steps.

  Returns:
    Scale and shift.
  """
  count = differences.shape[0]
  padding = -count % _ROWS
  padded = np.pad(np.asarray(differences), ((0, padding), (0, 0)))
  weights = np.pad(np.full(count, 1 / count, np.float32), (0, padding))
  return _fit(padded, weights, steps)


def centre(differences: Float[Array | np.ndarray, 'pairs 2']) -> float:
  """Largest shift of a bounded fit: what would centre these differences.

  Args:
    differences: of the full model on training pairs.
  """
  return abs(float(np.mean(differences)))


def fit_bounded(
  differences: Float[Array | np.ndarray, 'pairs 2'], most_shift: float
) -> tuple[float, float]:
  """Fits (scale, shift) to the task loss within bounds.

  The loss is convex in both, so that there is one best fit.

  Args:
    differences: answer logit differences of training pairs.
    most_shift: largest absolute shift, see `centre`.

  Returns:
    Scale within SCALES, and shift.
  """
  from scipy import optimize, special  # take a second that a start can spare

  # Positive where the answer is right.
  signs = np.array([1.0, -1.0])
  signed = np.asarray(differences, np.float64) * signs

  def loss(calibration):
    scale, shift = calibration
    margin = scale * signed + shift * signs
    slope = -special.expit(-margin) / margin.size
    gradient = [np.sum(slope * signed), np.sum(slope * signs)]
    return np.mean(np.logaddexp(0, -margin)), np.array(gradient)

  found = optimize.minimize(
    loss,
    (1.0, 0.0),
    jac=True,
    method='L-BFGS-B',
    bounds=[SCALES, (-most_shift, most_shift)],
  )
  scale, shift = found.x
  return float(scale), float(shift)


@functools.partial(jax.jit, static_argnames='steps')
def _fit(
  differences: Float[Array, 'rows 2'], weights: Float[Array, 'rows'], steps: int
) -> tuple[Float[Array, ''], Float[Array, '']]:
  def loss(calibration):
    log_scale, shift = calibration
    pull = _PULL * (log_scale**2 + shift**2)
    losses = pair_losses(differences, jnp.exp(log_scale), shift)
    return jnp.sum(weights * losses) + pull

  optimizer = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(loss)

  def step(carry, _):
    calibration, state = carry
    value, gradient = value_and_grad(calibration, state=state)
    updates, state = optimizer.update(
      gradient, state, calibration, value=value, grad=gradient, value_fn=loss
    )
    return (optax.apply_updates(calibration, updates), state), None

  start = (jnp.zeros(()), jnp.zeros(()))
  carry = (start, optimizer.init(start))
  (calibration, _), _ = jax.lax.scan(step, carry, length=steps)
  return jnp.exp(calibration[0]), calibration[1]
