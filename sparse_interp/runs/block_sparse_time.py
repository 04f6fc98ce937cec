"""Block-sparse products against the dense product, forward and backward.

Every implementation is first checked against numpy (float64), then they take
turns on the same random data, so that a slow moment of the machine hits all.
"""

import datetime
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import Array, Float
from ml_collections import config_dict

from sparse_interp.ops import block_sparse
from sparse_interp.ops.block_sparse_matmul import block_sparse_matmul
from sparse_interp.training import metrics
from sparse_interp.training import workdir as workdir_lib

# Largest error allowed, relative to the largest entry expected.
_TOLERANCE = {'float32': 1e-4, 'bfloat16': 2e-2, 'float16': 2e-2}


def block_sparse_time(
  config: config_dict.ConfigDict, workdir: str
) -> dict[str, Any]:
  """Times value and both gradients and writes block_sparse_time.json.

  Args:
    config: see experiments/benchmarks/block_sparse.py.
    workdir: receives block_sparse_time.json.

  Returns:
    The content of block_sparse_time.json.

  Raises:
    ValueError: a field of the configuration is wrong, or a result is.
  """
  if config.repetitions < 1:
    raise ValueError(
      f'repetitions must be at least 1, got {config.repetitions}; choose e.g. '
      '20.'
    )
  if config.dtype not in _TOLERANCE:
    raise ValueError(
      f'dtype must be one of {", ".join(_TOLERANCE)}, got {config.dtype!r}; '
      'choose e.g. float32.'
    )
  results = {}
  for density in config.densities:
    results[f'{density:.6g}'] = _compare(config, density)
  content = {
    'densities': results,
    'config': config.to_dict(),
    'device': workdir_lib.device_name(),
    'processor': platform.processor() or platform.machine(),
    'versions': {
      'jax': jax.__version__,
      'jaxlib': jaxlib.__version__,
      'python': platform.python_version(),
      'code': workdir_lib.code_version(),
    },
    'date': datetime.date.today().isoformat(),
  }
  pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
  workdir_lib.write_json(
    pathlib.Path(workdir) / 'block_sparse_time.json', content
  )
  return content


def _compare(config: config_dict.ConfigDict, density: float) -> dict[str, Any]:
  """Milliseconds of each way at one share of blocks, and ratios to dense."""
  x, matrix, dy = _draw(config, density)
  kept = int(block_sparse.nonzero_blocks(matrix, config.block).sum())
  w = block_sparse.from_dense(matrix, config.block, kept)
  ways = {'dense': (_dense, matrix)}
  ways |= {name: (_sparse(name), w) for name in config.implementations}
  steps = {name: jax.jit(run) for name, (run, _) in ways.items()}
  expected = _expected(x, matrix, dy, config.block)
  for name, (_, weights) in ways.items():
    _check(name, steps[name](x, weights, dy), expected, config)
  seconds = {name: [] for name in ways}
  for _ in range(config.repetitions):
    for name, (_, weights) in ways.items():
      begun = time.perf_counter()
      jax.block_until_ready(steps[name](x, weights, dy))
      seconds[name].append(time.perf_counter() - begun)
  row = {}
  for name, values in seconds.items():
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) * 1e3
    ratio = np.median(seconds['dense']) * 1e3 / median
    row[name] = {
      'median_ms': median,
      'quartiles_ms': [low, high],
      'times_dense': ratio,
    }
    metrics.say(
      'block_sparse_time',
      f'density {density:.6g} {name}: {median:.1f} ms, {ratio:.2f} x dense',
    )
  return row


def _draw(config, density) -> tuple[Array, Array, Array]:
  """x, W with exactly the asked share of blocks, and dy; standard normal."""
  rng = np.random.default_rng(config.seed)
  shape = (config.inputs, config.outputs)
  grid = block_sparse.block_grid(shape, config.block)
  kept = np.zeros(grid[0] * grid[1], bool)
  kept[: max(1, round(density * kept.size))] = True
  kept = rng.permutation(kept).reshape(grid)
  entries = np.kron(kept, np.ones((config.block, config.block), bool))
  matrix = rng.standard_normal(shape, np.float32)
  matrix *= entries[: shape[0], : shape[1]]
  x = rng.standard_normal((config.tokens, shape[0]), np.float32)
  dy = rng.standard_normal((config.tokens, shape[1]), np.float32)
  return tuple(jnp.asarray(a, config.dtype) for a in (x, matrix, dy))


def _dense(x, matrix, dy):
  y, pull = jax.vjp(lambda x, matrix: x @ matrix, x, matrix)
  return (y, *pull(dy))


def _sparse(implementation: str) -> Callable[..., Any]:
  """Value, dx and the gradient of the blocks."""

  def run(x, w, dy):
    def multiply(x, blocks):
      return block_sparse_matmul(x, w.replace(blocks), implementation)

    y, pull = jax.vjp(multiply, x, w.blocks)
    dx, dblocks = pull(dy)
    return y, dx, w.replace(dblocks)

  return run


def _expected(x, matrix, dy, block) -> list[Float[np.ndarray, '...']]:
  x, matrix, dy = (np.asarray(a, np.float64) for a in (x, matrix, dy))
  kept = np.asarray(block_sparse.nonzero_blocks(jnp.asarray(matrix), block))
  entries = np.kron(kept, np.ones((block, block), bool))
  entries = entries[: matrix.shape[0], : matrix.shape[1]]
  return [x @ matrix, dy @ matrix.T, x.T @ dy * entries]


def _check(name, result, expected, config) -> None:
  """Raises ValueError where a result is not the product."""
  y, dx, dw = result
  if isinstance(dw, block_sparse.BlockSparse):
    dw = block_sparse.to_dense(dw)
  else:
    dw = dw * (expected[2] != 0)
  for found, wanted in zip((y, dx, dw), expected, strict=True):
    error = np.abs(np.asarray(found, np.float64) - wanted).max()
    error /= np.abs(wanted).max()
    # Written so that NaN does not pass.
    if not error <= _TOLERANCE[config.dtype]:
      raise ValueError(
        f'{name} must agree with numpy to {_TOLERANCE[config.dtype]}, got a '
        f'relative error of {error:.3g}; remove it from implementations.'
      )
