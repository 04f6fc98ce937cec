"""Models whose weights no longer change: products with what is not zero.

`freeze` puts a `RowSparse` in the place of each kernel where that pays. What it
returns goes to `GPT.apply` like the parameters it was made from, is made anew
from them whenever they are loaded, and is never written to disk.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.models.config import PRODUCTS, GPTConfig
from sparse_interp.models.sites import edge_matrices
from sparse_interp.ops import machine
from sparse_interp.ops.row_sparse import row_sparse

Kernel = jax.Array | np.ndarray | row_sparse.RowSparse

# On 2 cores, products with the nonzero weights alone are 2 times faster than
# dense ones at 1 in 8, 3 times at 1 in 16 and 5 to 9 times at 1 in 64; at 1 in
# 4 nothing is gained (experiments/benchmarks/kernels.py).
_DENSITY = 1 / 8

# Of the narrower side: at width 64 less is gained, and nothing for few tokens.
_WIDTH = 128


def check_products(products: str) -> None:
  """Raises ValueError if products cannot be computed in this way."""
  if products not in PRODUCTS:
    raise ValueError(
      f'products must be one of {", ".join(PRODUCTS)}, got {products!r}; '
      f'choose e.g. {PRODUCTS[0]!r}.'
    )


def kernel_paths(config: GPTConfig) -> list[tuple[str, ...]]:
  """Keys of the kernels that `freeze` may replace, in forward order."""
  paths = dict.fromkeys(m.path for m in edge_matrices(config))
  if not config.tied_unembed:
    paths[('lm_head', 'kernel')] = None
  return list(paths)


def freeze(config: GPTConfig, params: dict, products: str = 'auto') -> dict:
  """Parameters with sparse kernels; `params` stays as it is.

  Args:
    config: the model.
    params: its parameters, none of them traced. Kernels that are sparse
      already stay so.
    products: 'dense' changes nothing; 'row_sparse' takes only the nonzero
      weights of every kernel; 'auto' does so where it is known to be faster: on
      a CPU, in float32, below a density and above a width.

  Raises:
    ValueError: there is no such way.
  """
  check_products(products)
  for path in kernel_paths(config):
    kernel = at(params, path)
    if isinstance(kernel, row_sparse.RowSparse) or products == 'dense':
      continue
    if products == 'row_sparse' or _pays(config, kernel):
      params = replace(params, path, row_sparse.from_dense(kernel))
  return params


def _pays(config: GPTConfig, kernel: jax.Array | np.ndarray) -> bool:
  """Whether few enough weights are not zero. On an H200 it never pays."""
  if (
    machine.of_this_machine() != 'cpu' or jnp.dtype(config.dtype) != jnp.float32
  ):
    return False
  density = np.count_nonzero(kernel) / max(1, kernel.size)
  return bool(min(kernel.shape) >= _WIDTH and density <= _DENSITY)


def at(params: dict, path: tuple[str, ...]) -> Kernel:
  """What stands at a path in a tree of dicts."""
  for key in path:
    params = params[key]
  return params


def replace(params: dict, path: tuple[str, ...], leaf: Kernel) -> dict:
  """The tree with another leaf at a path; `params` stays as it is."""
  key, *rest = path
  inner = replace(params[key], tuple(rest), leaf) if rest else leaf
  return {**params, key: inner}
