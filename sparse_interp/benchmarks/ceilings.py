"""What the machine can do at most: the roofs that kernels are held against."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from sparse_interp.benchmarks.case import Case, Inputs
from sparse_interp.benchmarks.competitors import by_jax


def _random(names: str, *shape: int) -> Callable[[int], Inputs]:
  """seed -> random arrays of one shape, by names of one letter."""
  return lambda seed: {
    name: np.random.default_rng((seed, i)).standard_normal(shape, np.float32)
    for i, name in enumerate(names)
  }


def ceiling_cases(width: int, entries: int, dtype: str) -> list[Case]:
  """A dense square product, and a copy with one operation per entry.

  Args:
    width: of the product.
    entries: float32 numbers that are copied.
    dtype: of the product.
  """
  dense = Case(
    name=f'ceiling_product_{dtype}_{width}',
    group='ceilings',
    parameters={'what': 'dense product', 'width': width, 'dtype': dtype},
    make=_random('xw', width, width),
    reference=lambda arrays: arrays['x'] @ arrays['w'],
    competitors={'jax': by_jax(lambda x, w: x @ w, 'x', 'w', dtype=dtype)},
    tolerance=1e-4 if dtype == 'float32' else 2e-2,
    flops=2.0 * width**3,
    bytes=3.0 * width**2 * jnp.dtype(dtype).itemsize,
  )
  copy = Case(
    name=f'ceiling_copy_{entries}',
    group='ceilings',
    parameters={'what': 'copy', 'entries': entries, 'dtype': 'float32'},
    make=_random('x', entries),
    reference=lambda arrays: arrays['x'] + np.float32(1),
    competitors={'jax': by_jax(lambda x: x + 1, 'x')},
    tolerance=1e-6,
    flops=0,
    bytes=8.0 * entries,
  )
  return [dense, copy]
