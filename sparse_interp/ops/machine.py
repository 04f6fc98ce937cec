"""Who can compute an operation, and what the machine at hand has.

An implementation is `reference` (plain jax, for every device), `cpu`, `gpu` or
`tpu` (made for one, mostly by kernels of our own), or the kernels of a device
interpreted on a CPU, slowly, to be tried. `auto` chooses. An operation states
which of them it has.
"""

from collections.abc import Collection

import jax

# Of the H100 SXM and the H200; used when lowering without a device.
_HOPPER_MULTIPROCESSORS = 132


def choose(implementation: str, available: Collection[str]) -> str:
  """The implementation meant, 'auto' resolved.

  Args:
    implementation: 'auto', or one of those available.
    available: what the operation has; 'reference' is always one of them.

  Raises:
    ValueError: the operation has no such implementation.
  """
  if implementation not in ('auto', *available):
    raise ValueError(
      f'implementation must be one of auto, {", ".join(available)}, got '
      f"{implementation!r}; choose e.g. 'auto'."
    )
  if implementation != 'auto':
    return implementation
  here = of_this_machine()
  return here if here in available else 'reference'


def of_this_machine() -> str:
  """The implementation made for jax's default device."""
  platform = jax.default_backend()
  if platform in ('cpu', 'tpu'):
    return platform
  # The kernels for GPUs are for Hopper; what other generations and makers have
  # are other instructions.
  capability = getattr(jax.local_devices()[0], 'compute_capability', '')
  return 'gpu' if str(capability).startswith('9.') else 'reference'


def multiprocessors() -> int:
  """Multiprocessors of the GPU at hand, or of a Hopper GPU without one."""
  if jax.default_backend() != 'gpu':
    return _HOPPER_MULTIPROCESSORS
  return jax.local_devices()[0].core_count


def is_for_accelerators(implementation: str) -> bool:
  """Whether it is a kernel of a GPU or TPU, run there or interpreted."""
  return implementation.startswith(('gpu', 'tpu'))
