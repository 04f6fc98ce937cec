"""Operations at one size, with every variant of their kernels."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparse_interp.ops.block_sparse import block_sparse, block_sparse_matmul
from sparse_interp.ops.row_sparse import (
  row_sparse,
  row_sparse_gpu,
  row_strips,
)
from sparse_interp.ops.topk import topk, topk_gpu, topk_kernels


@dataclasses.dataclass(frozen=True, eq=False)
class Variants:
  """An operation at one size.

  Attributes:
    operation: as `tuned.choice` asks for it.
    size: words and numbers by which it is looked up.
    draw: a key of jax.random -> the first argument, another for each copy.
    ways: functions of the arguments by name: 'plain' first, which is the
      reference and is jax without kernels of ours, others like it, and each
      variant.
    tolerance: largest difference from the reference, relative to its largest
      entry; 0 where results must be the same.
    rest: makes the other arguments, which all copies share.
  """

  operation: str
  size: Mapping[str, Any]
  draw: Callable[[jax.Array], jax.Array]
  ways: Mapping[str, Callable[..., Any]]
  tolerance: float
  rest: Callable[[], tuple[Any, ...]] = tuple

  @property
  def name(self) -> str:
    """The case in a word."""
    return '_'.join([self.operation, *map(_word, self.size.values())])


def _word(value: Any) -> str:
  """A number or word as a part of a name; shares as 1inN."""
  if isinstance(value, float) and value < 1:
    return f'1in{round(1 / value)}'
  return str(value)


def _by_top_k(x: jax.Array, k: int) -> jax.Array:
  index = lax.top_k(jnp.abs(x), k)[1]
  rows = jnp.arange(x.shape[0])[:, None]
  return jnp.zeros_like(x).at[rows, index].set(x[rows, index])


def abs_topk_cases(
  sizes: Iterable[tuple[str, int, int]], density: float, interpret: Any
) -> list[Variants]:
  """AbsTopK of (dtype, rows, width).

  Args:
    sizes: of the arrays.
    density: entries kept of a row.
    interpret: None, or what `compat.gpu_interpreter` returns.
  """
  cases = []
  for dtype, rows, width in sizes:
    k = max(1, int(density * width))
    ways = {
      'plain': functools.partial(topk.abs_topk, k=k, implementation='reference')
    }
    if dtype == 'float32':  # others have ties, which it breaks otherwise
      ways['plain_top_k'] = functools.partial(_by_top_k, k=k)
    for variant in topk_gpu.ROW_VARIANTS if interpret is None else ('warps4',):
      ways[variant] = functools.partial(
        topk_gpu.abs_topk_rows, k=k, interpret=interpret, variant=variant
      )
    cases.append(
      Variants(
        'abs_topk',
        {'dtype': dtype, 'rows': rows, 'width': width},
        functools.partial(_normal, (rows, width), dtype),
        ways,
        0.0,
      )
    )
  return cases


def _normal(shape, dtype, key):
  return jax.random.normal(key, shape, dtype)


def projection_cases(
  sizes: Iterable[int], density: float, interpret: Any
) -> list[Variants]:
  """The largest magnitudes of a whole float32 tensor.

  Args:
    sizes: entries of a tensor.
    density: entries kept.
    interpret: None, or what `compat.gpu_interpreter` returns.
  """
  implementation = 'gpu' if interpret is None else 'gpu_interpreted'
  cases = []
  for size in sizes:
    k = max(1, int(density * size))

    def plain(x, k=k):
      return jnp.where(topk.keep_mask(x, k, 'reference'), x, 0)

    def top_k(x, k=k):
      return _by_top_k(x.reshape(1, -1), k).reshape(x.shape)

    def ours(x, k=k, variant=''):
      count = jnp.int32(k)
      keep = topk_kernels.keep_mask(x, count, implementation, variant)
      return jnp.where(keep, x, 0)

    ways: dict[str, Any] = {'plain': plain, 'plain_top_k': top_k}
    ways |= {
      variant: functools.partial(ours, variant=variant)
      for variant in topk_kernels.PROJECTIONS
    }
    cases.append(
      Variants(
        'projection',
        {'size': size},
        functools.partial(_normal, (size // 500, 500), 'float32'),
        ways,
        0.0,
      )
    )
  return cases


def row_sparse_cases(
  sizes: Iterable[tuple[str, int, int, int]],
  densities: Iterable[float],
  interpret: Any,
) -> list[Variants]:
  """Products of (dtype, tokens, inputs, outputs) with unstructured weights.

  Args:
    sizes: of the products.
    densities: shares of weights that are not zero.
    interpret: None, or anything else to emulate.
  """
  densities, cases = list(densities), []
  for dtype, tokens, inputs, outputs in sizes:
    for density in densities:

      def ours(x, _, value, strips, variant='', outputs=outputs):
        return row_sparse_gpu.product(
          value, strips, outputs, x, interpret is not None, variant
        )

      ways: dict[str, Any] = {'plain': lambda x, w, *_: x @ w}
      ways |= {
        variant: functools.partial(ours, variant=variant)
        for variant in row_sparse_gpu.VARIANTS
      }
      size = {'tokens': tokens, 'inputs': inputs, 'outputs': outputs}
      cases.append(
        Variants(
          'row_sparse',
          {'dtype': dtype, **size, 'density': density},
          functools.partial(_normal, (tokens, inputs), dtype),
          ways,
          1e-2 if dtype == 'bfloat16' else 1e-3,
          functools.partial(_weights, dtype, density, inputs, outputs),
        )
      )
  return cases


def _weights(dtype, density, inputs, outputs):
  """(dense weights, the nonzero ones, their strips)."""
  rng = np.random.default_rng(0)
  w = np.zeros(inputs * outputs, np.float32)
  kept = rng.integers(0, w.size, max(1, int(density * w.size)))
  w[kept] = rng.standard_normal(kept.size, np.float32)
  w = w.reshape(inputs, outputs)
  sparse = row_sparse.from_dense(w, for_gpu=True)
  strips = sparse.layout.by_output.strips
  if not isinstance(strips, row_strips.Strips):
    raise ValueError(
      f'inputs must fit into shared memory, got {inputs}; choose fewer.'
    )
  return jnp.asarray(w, dtype), sparse.value.astype(dtype), strips


def block_sparse_cases(
  sizes: Iterable[tuple[int, int, int, int]],
  density: float,
  interpret: Any,
) -> list[Variants]:
  """Products of (block, tokens, inputs, outputs) with blocks in bfloat16.

  Args:
    sizes: of the products, and the side of a block.
    density: share of blocks that are not zero.
    interpret: None, or what `compat.gpu_interpreter` returns.
  """
  implementation = 'gpu' if interpret is None else 'gpu_interpreted'
  cases = []
  for block, tokens, inputs, outputs in sizes:

    def ours(x, _, blocks):
      return block_sparse_matmul.block_sparse_matmul(x, blocks, implementation)

    cases.append(
      Variants(
        'block_sparse',
        {'block': block, 'dtype': 'bfloat16'},
        functools.partial(_normal, (tokens, inputs), 'bfloat16'),
        {'plain': lambda x, w, _: x @ w, 'pipelined': ours},
        1e-2,
        functools.partial(_blocks, block, density, inputs, outputs),
      )
    )
  return cases


def _blocks(block, density, inputs, outputs):
  """(dense weights, their blocks)."""
  rng = np.random.default_rng(0)
  grid = (inputs // block, outputs // block)
  places = grid[0] * grid[1]
  kept = (rng.permutation(places) < density * places).reshape(grid)
  mask = np.kron(kept, np.ones((block, block), bool))
  w = jnp.asarray(
    np.where(mask, rng.standard_normal(mask.shape, np.float32), 0),
    jnp.bfloat16,
  )
  return w, block_sparse.from_dense(w, block, int(kept.sum()))
