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

from sparse_interp.ops import topk_kernels, topk_search

IMPLEMENTATIONS = (
  'auto',
  'reference',
  'cpu',
  'mosaic_tpu',
  'mosaic_gpu',
  'interpret_tpu',
  'interpret_gpu',
)

# Below this many entries a projection is not worth a kernel's launches.
_SMALLEST_FOR_A_KERNEL = 2**16

# Nor are halves of a matrix with fewer entries worth their preparation; split
# over devices, its groups of rows would not lie on one.
_SMALLEST_BY_HALVES = 2**14


def _resolve(impl: str) -> str:
  """The implementation meant, for the platform at hand if it is 'auto'."""
  if impl not in IMPLEMENTATIONS:
    raise ValueError(
      f'impl must be one of {", ".join(IMPLEMENTATIONS)}, got {impl!r}; choose '
      "e.g. 'auto'."
    )
  if impl != 'auto':
    return impl
  platform = jax.default_backend()
  if platform == 'tpu':
    return 'mosaic_tpu'
  if platform == 'gpu':
    # The kernels are for Hopper; other GPUs, and other makers', have XLA's.
    capability = getattr(jax.local_devices()[0], 'compute_capability', '')
    return 'mosaic_gpu' if str(capability).startswith('9.') else 'reference'
  return 'cpu'


def _is_kernel(impl: str) -> bool:
  return impl not in ('reference', 'cpu')


def _keep(x, count, axes, impl):
  return topk_search.keep(x, count, axes, halves=impl == 'cpu')


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
    topk_search.magnitude_bits(x), jnp.asarray(count, jnp.int32), axes
  )
  return lax.bitcast_convert_type(bits, jnp.float32).reshape(())


def keep_mask(
  x: Float[Array, '...'],
  count: Int[Array, ''] | int,
  impl: str = 'auto',
  stacked: bool = False,
) -> Bool[Array, '...']:
  """Marks exactly the `count` entries of largest magnitude of the array.

  Args:
    x: scores of any shape, float32 or narrower, possibly sharded.
    count: in [0, x.size]; a Python int or a traced int32 scalar.
    impl: one of IMPLEMENTATIONS. 'auto' takes a kernel on a TPU and on a Hopper
      GPU if the array is large; 'interpret_*' run these on a CPU, to be tried.
    stacked: the first axis lists arrays, in each of which `count` are kept. A
      CPU searches all of them at once, others one after the other.

  Returns:
    Bool mask with exactly `count` True entries; among equal magnitudes the
    lowest flat indices win.

  Raises:
    ValueError: there is no such implementation.
  """
  chosen = _resolve(impl)
  if stacked and chosen != 'cpu':
    return lax.map(lambda x: keep_mask(x, count, impl), x)
  axes = tuple(range(int(stacked), x.ndim))
  size = math.prod(x.shape[axis] for axis in axes)
  if chosen == 'cpu' and x.ndim > 1 and size < _SMALLEST_BY_HALVES:
    chosen = 'reference'
  small = impl == 'auto' and size < _SMALLEST_FOR_A_KERNEL
  if small and _is_kernel(chosen):
    chosen = 'reference'
  if _is_kernel(chosen) and size:
    return topk_kernels.keep_mask(x, jnp.asarray(count, jnp.int32), chosen)
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
  return _keep(x, count, (axis % x.ndim,), _resolve('auto'))


def abs_topk(
  x: Float[Array, '*batch width'], k: int, impl: str = 'auto'
) -> Float[Array, '...']:
  """AbsTopK: keeps the k largest magnitudes of the last axis, zeroes the rest.

  Sign and value of kept entries are unchanged; the gradient flows through
  kept entries only (arXiv 2511.13653, section 2).

  Args:
    x: activations, float32 or narrower.
    k: entries kept per vector, in [0, width]; ties go to the lowest indices.
    impl: one of IMPLEMENTATIONS. 'auto' takes a kernel on a TPU and on a Hopper
      GPU; 'interpret_*' run these on a CPU, to be tried.

  Raises:
    ValueError: there is no such implementation.
  """
  chosen = _resolve(impl)
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
def _fused_abs_topk(x, k, impl):
  return topk_kernels.abs_topk(x, k, impl)


def _fused_forward(x, k, impl):
  y = topk_kernels.abs_topk(x, k, impl)
  return y, y


def _fused_backward(k, impl, y, gradient):
  # What was kept is known from the output alone: only what was dropped is +0.
  del k, impl
  word = {2: jnp.int16, 4: jnp.int32}[y.dtype.itemsize]
  keep = lax.bitcast_convert_type(y, word) != 0
  return (jnp.where(keep, gradient, 0),)


_fused_abs_topk.defvjp(_fused_forward, _fused_backward)
