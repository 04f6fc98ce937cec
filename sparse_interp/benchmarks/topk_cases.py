"""Cases of selection: AbsTopK over rows, and the projection of a tensor."""

import math
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jax import lax

from sparse_interp.benchmarks.case import Case
from sparse_interp.benchmarks.competitors import by_jax, by_numpy, by_torch
from sparse_interp.ops.topk import topk


def _indices(x, k):
  """By the indices of lax.top_k and a scatter."""
  index = lax.top_k(jnp.abs(x), k)[1]
  rows = jnp.arange(x.shape[0])[:, None]
  return jnp.zeros_like(x).at[rows, index].set(x[rows, index])


def _threshold(x, k):
  """By the least of lax.top_k; jnp.min keeps it from becoming a full sort."""
  least = jnp.min(lax.top_k(jnp.abs(x), k)[0], axis=-1, keepdims=True)
  return jnp.where(jnp.abs(x) >= least, x, 0)


def _sorted(x, k):
  least = jnp.sort(jnp.abs(x), axis=-1)[..., -k, None]
  return jnp.where(jnp.abs(x) >= least, x, 0)


def _by_torch(k):
  def prepare(torch, inputs):
    x = inputs['x']

    def run():
      index = x.abs().topk(k, dim=-1, sorted=False).indices
      return torch.zeros_like(x).scatter_(-1, index, x.gather(-1, index))

    return run

  return prepare


def _reference(k):
  def reference(inputs):
    x = inputs['x']
    least = np.partition(np.abs(x), x.shape[-1] - k, axis=-1)
    return np.where(np.abs(x) >= least[..., [x.shape[-1] - k]], x, 0)

  return reference


def _on_the_host(k):
  reference = _reference(k)
  return by_numpy(lambda inputs: lambda: reference(inputs))


def _distinct(shape: tuple[int, ...], seed: int) -> np.ndarray:
  """Numbers of distinct magnitudes in random order, so that all keep the same.

  Which of a tie is kept differs between ways; ties are what the tests are for.
  Magnitudes are evenly spaced in the logarithm, from 1e-3 to 8.
  """
  size = int(np.prod(shape))
  first, last = (int(np.float32(v).view(np.int32)) for v in (1e-3, 8))
  stride = (last - first) // size
  if stride < 1:
    raise ValueError(
      f'size must be at most {last - first}, the float32 numbers there are '
      f'from 1e-3 to 8, got {size}; choose less.'
    )
  bits = first + stride * np.arange(size, dtype=np.int32)
  rng = np.random.default_rng(seed)
  sign = rng.choice(np.array([-1, 1], np.float32), size)
  return (rng.permutation(bits).view(np.float32) * sign).reshape(shape)


def abs_topk_cases(
  sizes: Iterable[tuple[int, int]], density: float
) -> list[Case]:
  """AbsTopK of (rows, width) activations, float32."""
  cases = []
  for rows, width in sizes:
    k = max(1, int(density * width))
    ways = {
      'ours': by_jax(lambda x, k=k: topk.abs_topk(x, k), 'x'),
      'ours_xla': by_jax(lambda x, k=k: topk.abs_topk(x, k, 'reference'), 'x'),
      'top_k_min': by_jax(lambda x, k=k: _threshold(x, k), 'x'),
      'top_k_scatter': by_jax(lambda x, k=k: _indices(x, k), 'x'),
      'sort': by_jax(lambda x, k=k: _sorted(x, k), 'x'),
      'torch_topk': by_torch(_by_torch(k)),
      'numpy_partition': _on_the_host(k),
    }
    cases.append(
      Case(
        name=f'abs_topk_{rows}x{width}',
        group='abs_topk',
        parameters={'rows': rows, 'width': width, 'k': k},
        make=lambda seed, shape=(rows, width): {'x': _distinct(shape, seed)},
        reference=_reference(k),
        competitors=ways,
        tolerance=0.0,
        flops=0,
        bytes=2 * 4 * rows * width,
        exact=True,
      )
    )
  return cases


def projection_cases(sizes: Iterable[int], density: float) -> list[Case]:
  """The k largest magnitudes of a whole tensor, float32."""
  cases = []
  for size in sizes:
    k = max(1, int(density * size))

    def ours(x, k=k, implementation='auto'):
      # A matrix, as weights are; ours selects from any shape.
      matrix = x.reshape(-1, math.gcd(x.size, 2000))
      kept = jnp.where(topk.keep_mask(matrix, k, implementation), matrix, 0)
      return kept.reshape(x.shape)

    cases.append(
      Case(
        name=f'projection_{size}',
        group='projection',
        parameters={'size': size, 'k': k},
        # One row, since that is what the other ways select from.
        make=lambda seed, size=size: {'x': _distinct((1, size), seed)},
        reference=_reference(k),
        competitors={
          'ours': by_jax(ours, 'x'),
          'ours_xla': by_jax(
            lambda x, f=ours: f(x, implementation='reference'), 'x'
          ),
          'top_k_min': by_jax(lambda x, k=k: _threshold(x, k), 'x'),
          'top_k_scatter': by_jax(lambda x, k=k: _indices(x, k), 'x'),
          'sort': by_jax(lambda x, k=k: _sorted(x, k), 'x'),
          'torch_topk': by_torch(_by_torch(k)),
          'numpy_partition': _on_the_host(k),
        },
        tolerance=0.0,
        flops=0,
        bytes=2 * 4 * size,
        exact=True,
      )
    )
  return cases
