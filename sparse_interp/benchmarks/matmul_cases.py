"""Cases of products with sparse weights, and what all of them compete with."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from sparse_interp.benchmarks.case import AbsentError, Case, Competitor, Inputs
from sparse_interp.benchmarks.competitors import (
  by_jax,
  by_numpy,
  by_torch,
  module,
  product,
  to_device,
)
from sparse_interp.ops.row_sparse.row_sparse import (
  feature_major_matmul,
  row_sparse_matmul,
)
from sparse_interp.ops.row_sparse.row_sparse import from_dense as rows_of

# cuSPARSE and MKL know no other floats.
_TORCH = 'float32'


def _weights(
  rng: np.random.Generator, shape: tuple[int, int], density: float
) -> np.ndarray:
  """Random weights, exactly int(density * size) of them not zero."""
  size = shape[0] * shape[1]
  weights = np.zeros(size, np.float32)
  kept = rng.choice(size, max(1, int(density * size)), replace=False)
  weights[kept] = rng.standard_normal(kept.size, np.float32)
  return weights.reshape(shape)


def sparse_by_jax(
  kind: str, function: Callable[[Any, Any], Any], dtype: str
) -> Competitor:
  """A product with a sparse matrix of `jax.experimental`, transposed."""

  def prepare(inputs: Inputs):
    class_ = {'bcoo': sparse.BCOO, 'bcsr': sparse.BCSR}[kind]
    matrix = class_.fromdense(jnp.asarray(inputs['w'].T, dtype))
    x_t = to_device(inputs['x'].T, dtype)
    if kind == 'bcoo' and matrix.nse * x_t.shape[1] * 4 > 2**32:
      raise AbsentError('would hold nonzeros x tokens, beyond 4 GiB')
    jitted = jax.jit(function)
    return lambda: jitted(matrix, x_t)

  return Competitor(
    prepare, jax.block_until_ready, lambda y: np.asarray(y, np.float32).T
  )


def _scipy_csr(inputs: Inputs) -> Callable[[], Any]:
  scipy_sparse = module('scipy.sparse')
  matrix = scipy_sparse.csr_matrix(np.ascontiguousarray(inputs['w'].T))
  x_t = np.ascontiguousarray(inputs['x'].T)
  return lambda: (matrix @ x_t).T


def _torch_dense(torch, inputs):
  x, w = inputs['x'], inputs['w']
  return lambda: x @ w


def _torch_csr(torch, inputs):
  matrix = inputs['w'].T.contiguous().to_sparse_csr()
  x_t = inputs['x'].T.contiguous()
  return lambda: (matrix @ x_t).T


def torch_bsr(size: int) -> Callable[[Any, Any], Any]:
  """torch's blocked CSR, by the tuned product that `linear` dispatches to."""

  def prepare(torch, inputs):
    matrix = inputs['w'].T.contiguous().to_sparse_bsr((size, size))
    x = inputs['x']
    return lambda: torch.nn.functional.linear(x, matrix)

  return prepare


def _ours(function: Callable[[Any, Any], Any], dtype: str) -> Competitor:
  def prepare(inputs: Inputs):
    w = to_device(rows_of(inputs['w']), dtype)
    x = to_device(inputs['x'], dtype)
    jitted = jax.jit(function)
    return lambda: jitted(x, w)

  return Competitor(
    prepare, jax.block_until_ready, lambda y: np.asarray(y, np.float32)
  )


def _ours_feature_major(dtype: str) -> Competitor:
  """The order in which a GPU's kernel takes activations; a CPU's does not."""
  function = _ours(lambda x, w: feature_major_matmul(x, w), dtype)

  def prepare(inputs: Inputs):
    if jax.default_backend() == 'cpu':
      raise AbsentError('the kernel for CPUs is token-major')
    return function.prepare(
      {'x': np.ascontiguousarray(inputs['x'].T), 'w': inputs['w']}
    )

  return Competitor(
    prepare, function.wait, lambda y: np.asarray(y, np.float32).T
  )


def make_product(
  tokens: int,
  shape: tuple[int, int],
  weights: Callable[[np.random.Generator], np.ndarray],
) -> Callable[[int], Inputs]:
  """seed -> random activations and weights."""

  def make(seed: int) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, shape[0]), np.float32)
    return {'x': x, 'w': weights(rng)}

  return make


def row_sparse_cases(
  sizes: Iterable[tuple[int, int, int]],
  densities: Iterable[float],
  dtype: str,
) -> list[Case]:
  """Forward products, (tokens, inputs, outputs), of unstructured weights."""
  cases = []
  item = jnp.dtype(dtype).itemsize
  densities = list(densities)
  for tokens, inputs, outputs in sizes:
    for density in densities:
      shape = (inputs, outputs)
      kept = max(1, int(density * inputs * outputs))
      cases.append(
        Case(
          name=f'row_sparse_{dtype}_{tokens}x{inputs}x{outputs}_'
          f'1in{round(1 / density)}',
          group='row_sparse',
          parameters={
            'tokens': tokens,
            'inputs': inputs,
            'outputs': outputs,
            'density': f'1/{round(1 / density)}',
            'dtype': dtype,
          },
          make=make_product(
            tokens,
            shape,
            lambda rng, shape=shape, density=density: _weights(
              rng, shape, density
            ),
          ),
          reference=lambda arrays: product(arrays['x'], arrays['w']),
          competitors={
            'ours': _ours(lambda x, w: row_sparse_matmul(x, w), dtype),
            'ours_feature_major': _ours_feature_major(dtype),
            'dense': by_jax(lambda x, w: x @ w, 'x', 'w', dtype=dtype),
            'bcsr': sparse_by_jax('bcsr', lambda w, x_t: w @ x_t, 'float32'),
            'bcoo': sparse_by_jax('bcoo', lambda w, x_t: w @ x_t, 'float32'),
            'scipy_csr': by_numpy(_scipy_csr),
            'torch_dense': by_torch(_torch_dense, dtype),
            'torch_csr': by_torch(_torch_csr, _TORCH),
          },
          tolerance=1e-4 if item == 4 else 2e-2,
          flops=2 * tokens * kept,
          bytes=item * tokens * (inputs + outputs) + (item + 4) * kept,
        )
      )
  return cases
