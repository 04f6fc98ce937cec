"""Magnitudes as integers, and arrays that are rounded once."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import machine


def written_down(x: Float[Array, '...']) -> Float[Array, '...']:
  """`x` as one array in memory, which all that follows reads.

  A compiler may compute an array anew for each of its readers, and round it
  otherwise in each (a product and a sum become one rounding here, two there).
  A threshold found in one copy then misses its own entry in another. What comes
  out of a loop is not computed anew. This one makes no round, but only the
  array itself tells so: the bits of a magnitude are never negative. Elsewhere
  than on a CPU a barrier does the same; there it is taken away too early.
  """
  if machine.of_this_machine() != 'cpu' or not x.size:
    return lax.optimization_barrier(x)
  first = magnitude_bits(x[(0,) * x.ndim])
  return lax.while_loop(
    lambda carry: carry[0] < 0,
    lambda carry: (carry[0] + 1, -carry[1]),
    (first, x),
  )[1]


def magnitude_bits(x: Float[Array, '...']) -> Int32[Array, '...']:
  """Integers ordered like |x| (float32; narrower floats widen exactly)."""
  magnitude = jnp.abs(x.astype(jnp.float32))
  return lax.bitcast_convert_type(magnitude, jnp.int32)
