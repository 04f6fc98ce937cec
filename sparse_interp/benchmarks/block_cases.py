"""Cases of products with block-sparse weights: forward, and with gradients."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.benchmarks.case import Case, Competitor, Inputs
from sparse_interp.benchmarks.competitors import (
  by_jax,
  by_torch,
  product,
  to_device,
)
from sparse_interp.benchmarks.matmul_cases import make_product, torch_bsr
from sparse_interp.ops.block_sparse.block_sparse import (
  from_dense,
  to_dense,
)
from sparse_interp.ops.block_sparse.block_sparse_matmul import (
  block_sparse_matmul,
)


def block_weights(
  rng: np.random.Generator,
  shape: tuple[int, int],
  block: int,
  density: float,
) -> np.ndarray:
  """Random weights in a share `density` of the blocks, chosen at random."""
  grid = (shape[0] // block, shape[1] // block)
  count = grid[0] * grid[1]
  kept = np.zeros(count, np.float32)
  chosen = rng.choice(count, max(1, round(density * count)), replace=False)
  kept[chosen] = 1
  mask = np.kron(kept.reshape(grid), np.ones((block, block), np.float32))
  weights = rng.standard_normal(shape, np.float32)
  # Zeros inside of a kept block, one in millions, would be taken for dropped.
  return mask * np.where(weights == 0, np.float32(1), weights)


def _with_gradients(product: Callable[[Any, Any], Any]) -> Callable[..., Any]:
  """(x, w, dy) -> the product, both gradients, and w."""

  def run(x, w, dy):
    y, pull = jax.vjp(lambda x, w: product(x, w), x, w)
    return y, *pull(dy), w

  return run


def _ours_product(x: Any, blocks: Any, w: Any) -> Any:
  return block_sparse_matmul(x, w.replace(blocks))


def _ours(block: int, dtype: str, gradients: bool) -> Competitor:
  def run(x, w, dy):
    if not gradients:
      return block_sparse_matmul(x, w)
    y, pull = jax.vjp(lambda x, b: _ours_product(x, b, w), x, w.blocks)
    dx, dblocks = pull(dy)
    return y, dx, w.replace(dblocks)

  def prepare(inputs: Inputs):
    dense = inputs['w']
    grid = dense.reshape(
      dense.shape[0] // block, block, dense.shape[1] // block, block
    )
    count = int((grid != 0).any(axis=(1, 3)).sum())
    w = to_device(from_dense(jnp.asarray(dense), block, count), dtype)
    x, dy = (to_device(inputs[name], dtype) for name in ('x', 'dy'))
    jitted = jax.jit(run)
    return lambda: jitted(x, w, dy)

  def to_numpy(result):
    if not gradients:
      return jax.device_get(result)
    y, dx, dw = result
    return jax.device_get([y, dx, to_dense(dw)])

  return Competitor(prepare, jax.block_until_ready, to_numpy)


def _kept(result: Any) -> Any:
  """Of the gradient of dense weights, what lies in the kept blocks."""
  y, dx, dw, w = result
  return [y, dx, dw * (w != 0)]


def _dense(dtype: str, gradients: bool) -> Competitor:
  if not gradients:
    return by_jax(lambda x, w: x @ w, 'x', 'w', dtype=dtype)
  run = _with_gradients(lambda x, w: x @ w)
  competitor = by_jax(run, 'x', 'w', 'dy', dtype=dtype)
  return dataclasses.replace(
    competitor, to_numpy=lambda result: _kept(jax.device_get(result))
  )


def _torch_dense(gradients: bool, dtype: str) -> Competitor:
  def prepare(torch, inputs):
    x, w, dy = (inputs[name] for name in ('x', 'w', 'dy'))
    if not gradients:
      return lambda: x @ w
    return lambda: (x @ w, dy @ w.T, x.T @ dy, w)

  competitor = by_torch(prepare, dtype)
  if not gradients:
    return competitor
  return dataclasses.replace(
    competitor, to_numpy=lambda result: _kept(competitor.to_numpy(result))
  )


def _reference(gradients: bool) -> Callable[[Inputs], Any]:
  def reference(inputs: Inputs):
    x, w, dy = (inputs[name] for name in ('x', 'w', 'dy'))
    if not gradients:
      return product(x, w)
    dw = product(x.T, dy) * (w != 0)
    return [product(x, w), product(dy, w.T), dw]

  return reference


def _make(tokens, shape, block, density):
  draw = make_product(
    tokens, shape, lambda rng: block_weights(rng, shape, block, density)
  )

  def make(seed: int) -> Inputs:
    rng = np.random.default_rng((seed, 1))
    return {
      **draw(seed),
      'dy': rng.standard_normal((tokens, shape[1]), np.float32),
    }

  return make


def block_sparse_cases(
  sizes: Iterable[tuple[int, int, int]],
  blocks: Iterable[int],
  densities: Iterable[float],
  dtype: str,
) -> list[Case]:
  """Products of (tokens, inputs, outputs), forward and with both gradients."""
  cases = []
  for (tokens, inputs, outputs), block, density, gradients in itertools.product(
    sizes, blocks, densities, (False, True)
  ):
    shape = (inputs, outputs)
    kept = max(1, round(density * (inputs // block) * (outputs // block)))
    kept *= block * block
    item = jnp.dtype(dtype).itemsize
    of = '1' if density == 1 else f'1/{round(1 / density)}'
    ways = {
      'ours': _ours(block, dtype, gradients),
      'dense': _dense(dtype, gradients),
      'torch_dense': _torch_dense(gradients, dtype),
    }
    if not gradients:
      ways['torch_bsr'] = by_torch(torch_bsr(block), dtype)
    direction = 'all' if gradients else 'forward'
    cases.append(
      Case(
        name=f'block_sparse_{dtype}_{tokens}x{inputs}x{outputs}_{block}_'
        f'{of.replace("/", "in")}_{direction}',
        group='block_sparse',
        parameters={
          'tokens': tokens,
          'inputs': inputs,
          'outputs': outputs,
          'block': block,
          'density': of,
          'dtype': dtype,
          'gradients': 'yes' if gradients else 'no',
        },
        make=_make(tokens, shape, block, density),
        reference=_reference(gradients),
        competitors=ways,
        tolerance=1e-4 if item == 4 else 2e-2,
        flops=2 * tokens * kept * (3 if gradients else 1),
        bytes=item
        * (tokens * (inputs + outputs) + kept)
        * (2 if gradients else 1),
      )
    )
  return cases
