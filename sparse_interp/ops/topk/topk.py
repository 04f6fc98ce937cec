"""Selection of the k largest magnitudes, exactly and without a sort.

Chooses who searches: `topk_search` in plain jax, or the kernels of
`topk_kernels`. All keep the same entries: among equal magnitudes those of the
lowest indices.

Source: AbsTopK and the weight projection of arXiv 2511.13653 (sections 2 and
A.1).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparse_interp.ops import machine, thresholds
from sparse_interp.ops.topk import topk_bits, topk_kernels, topk_search
from sparse_interp.ops.tuned import choice

IMPLEMENTATIONS = (
  'reference',
  'cpu',
  'gpu',
  'tpu',
  'gpu_interpreted',
  'tpu_interpreted',
)


def _keep(x, count, axes, implementation):
  return topk_search.keep(x, count, axes, halves=implementation == 'cpu')


def kth_largest_magnitude(
  x: Float[Array, '...'], count: Int[Array, ''] | int
) -> Float[Array, '']:
  """Returns the `count`-th largest magnitude of the whole array, float32.

  Args:
    x: floats of any shape, possibly sharded. NaN is not supported.
    count: in [1, x.size]; a Python int or a traced int32 scalar.
  """
  axes = tuple(range(x.ndim))
  bits = topk_search.kth_largest(
    topk_bits.magnitude_bits(x), jnp.asarray(count, jnp.int32), axes
  )
  return lax.bitcast_convert_type(bits, jnp.float32).reshape(())


def keep_mask(
  x: Float[Array, '...'],
  count: Int[Array, ''] | int,
  implementation: str = 'auto',
  stacked: bool = False,
) -> Bool[Array, '...']:
  """Marks exactly the `count` entries of largest magnitude of the array.

  Args:
    x: scores of any shape, float32 or narrower, possibly sharded.
    count: in [0, x.size]; a Python int or a traced int32 scalar.
    implementation: 'auto' or one of IMPLEMENTATIONS; see `machine`. 'auto'
      takes the kernel of an accelerator if the array is large, on a GPU if it
      is known to be faster.
    stacked: the first axis lists arrays, in each of which `count` are kept. A
      CPU searches all of them at once, others one after the other.

  Returns:
    Bool mask with exactly `count` True entries; among equal magnitudes the
    lowest flat indices win.

  Raises:
    ValueError: there is no such implementation.
  """
  chosen = machine.choose(implementation, IMPLEMENTATIONS)
  if stacked and chosen != 'cpu':
    return lax.map(lambda x: keep_mask(x, count, implementation), x)
  axes = tuple(range(int(stacked), x.ndim))
  size = math.prod(x.shape[axis] for axis in axes)
  if chosen == 'cpu' and x.ndim > 1 and size < thresholds.PROJECTED_BY_HALVES:
    chosen = 'reference'
  variant = topk_kernels.PROJECTION
  if implementation == 'auto' and machine.is_for_accelerators(chosen):
    if chosen == 'gpu':
      variant = choice.best('projection', size=max(1, size))
    if size < thresholds.PROJECTED_BY_A_KERNEL or variant is None:
      chosen = 'reference'
  if machine.is_for_accelerators(chosen) and size:
    count = jnp.asarray(count, jnp.int32)
    return topk_kernels.keep_mask(x, count, chosen, variant)
  return _keep(x, count, axes, chosen)


def keep_mask_along_axis(
  x: Float[Array, '...'], count: Int[Array, ''] | int, axis: int
) -> Bool[Array, '...']:
  """Marks the `count` largest magnitudes of every slice along `axis`.

  Args:
    x: scores.
    count: entries to keep in each slice, in [0, x.shape[axis]].
    axis: the axis along which entries compete.

  Returns:
    Bool mask with exactly `count` True entries in each slice.
  """
  return _keep(
    x, count, (axis % x.ndim,), machine.choose('auto', IMPLEMENTATIONS)
  )


def abs_topk(
  x: Float[Array, '*batch width'], k: int, implementation: str = 'auto'
) -> Float[Array, '...']:
  """AbsTopK: keeps the k largest magnitudes of the last axis, zeroes the rest.

  Sign and value of kept entries are unchanged; the gradient flows through
  kept entries only (arXiv 2511.13653, section 2).

  Args:
    x: activations, float32 or narrower.
    k: entries kept per vector, in [0, width]; ties go to the lowest indices.
    implementation: 'auto' or one of IMPLEMENTATIONS; see `machine`. On a GPU
      'auto' takes its kernel if it is known to be faster.

  Raises:
    ValueError: there is no such implementation.
  """
  chosen = machine.choose(implementation, IMPLEMENTATIONS)
  if chosen == 'gpu' and implementation == 'auto':
    if topk_kernels.best_for_rows(x.shape, x.dtype.name) is None:
      chosen = 'reference'
  if chosen != 'reference' and 0 < k < x.shape[-1]:
    if x.shape[-1] <= topk_kernels.widest_row(chosen):
      return _fused_abs_topk(x, k, chosen)
  return _abs_topk(x, k)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _abs_topk(x, k):
  return _abs_topk_forward(x, k)[0]


def _abs_topk_forward(x, k):
  keep = _keep(x, k, (x.ndim - 1,), 'reference')
  return jnp.where(keep, x, 0), keep


def _abs_topk_backward(k, keep, gradient):
  del k
  return (jnp.where(keep, gradient, 0),)


_abs_topk.defvjp(_abs_topk_forward, _abs_topk_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _fused_abs_topk(x, k, implementation):
  return topk_kernels.abs_topk(x, k, implementation)


def _fused_forward(x, k, implementation):
  y = topk_kernels.abs_topk(x, k, implementation)
  return y, y


def _fused_backward(k, implementation, y, gradient):
  # What was kept is known from the output alone: only what was dropped is +0.
  del k, implementation
  word = {2: jnp.int16, 4: jnp.int32}[y.dtype.itemsize]
  keep = lax.bitcast_convert_type(y, word) != 0
  return (jnp.where(keep, gradient, 0),)


_fused_abs_topk.defvjp(_fused_forward, _fused_backward)
