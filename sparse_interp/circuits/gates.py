"""Gates: switches on nodes, learned through a step with a soft gradient.

A gate is 1 where a node keeps its value and 0 where it is frozen at the value
that removal leaves behind. Forward, a gate is exactly 0 or 1; backward, the
step is replaced by the derivative of a sigmoid (arXiv 2511.13653, section A.5;
the exact surrogate is not published, s(x/T) (1 - s(x/T)) / T is the usual one).
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# {site: (width,) values in [0, 1]}. A gate on something else than a node, such
# as one weight, will be another key of the same mapping.
Gates = Mapping[str, Float[Array | np.ndarray, '_']]


@jax.custom_vjp
def heaviside(
  tau: Float[Array, '...'], temperature: Float[Array, ''] | float
) -> Float[Array, '...']:
  """Step function, 1 where tau > 0, with a sigmoid's derivative backward.

  Args:
    tau: gate parameters; 0 itself counts as off.
    temperature: T > 0 in the surrogate s(tau/T) (1 - s(tau/T)) / T; it gets
      no gradient.
  """
  return (tau > 0).astype(tau.dtype)


def _heaviside_forward(tau, temperature):
  return heaviside(tau, temperature), (tau, temperature)


def _heaviside_backward(residuals, gradient):
  tau, temperature = residuals
  soft = jax.nn.sigmoid(tau / temperature)
  slope = soft * (1 - soft) / temperature
  return gradient * slope, jax.tree.map(jnp.zeros_like, temperature)


heaviside.defvjp(_heaviside_forward, _heaviside_backward)


@jax.custom_vjp
def blend(
  gate: Float[Array, 'width'],
  x: Float[Array, '... width'],
  mean: Float[Array, 'width'],
) -> Float[Array, '... width']:
  """Returns gate * x + (1 - gate) * mean, in the dtype of x.

  The gradient of a gate sums over every position. It is written as a product
  with a vector of ones, which on CPU is a third faster than a reduction over
  the leading axes. The mean is a constant and gets no gradient.
  """
  return (gate * x + (1 - gate) * mean).astype(x.dtype)


def _blend_forward(gate, x, mean):
  return blend(gate, x, mean), (gate, x, mean)


def _blend_backward(residuals, gradient):
  gate, x, mean = residuals
  # Not reshape(-1, width): a site of a small model may have no node at all.
  positions = math.prod(x.shape[:-1])
  by_position = (gradient * (x - mean)).astype(gate.dtype)
  by_position = by_position.reshape(positions, x.shape[-1])
  ones = jnp.ones(positions, gate.dtype)
  to_x = (gate * gradient).astype(x.dtype)
  return ones @ by_position, to_x, jnp.zeros_like(mean)


blend.defvjp(_blend_forward, _blend_backward)


def gate_edits(
  gates: Gates, means: Gates
) -> dict[str, Callable[[Array], Array]]:
  """Turns gates into edits of the model.

  Args:
    gates: {site: gates of its nodes}; sites that are absent stay untouched.
    means: {site: values that removed nodes take}, at least for those sites.

  Returns:
    {site: function computing gate * x + (1 - gate) * mean}.
  """
  return {
    site: lambda x, gate=gate, mean=means[site]: blend(gate, x, mean)
    for site, gate in gates.items()
  }
