"""What the nonzero weights alone are worth: products, evaluation, pruning.

Everything is compared with its dense twin in one process: first the results,
which must agree, then the time, in turns, so that a slow moment of the machine
hits both. Weights and tokens are random.
"""

import datetime
import functools
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from ml_collections import config_dict

from sparse_interp.circuits import gated_model, pruning
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.task_loss import Pairs
from sparse_interp.models import GPT, GPTConfig, frozen
from sparse_interp.models.sites import constant_sites
from sparse_interp.ops import row_sparse as ops
from sparse_interp.training import metrics
from sparse_interp.training import workdir as workdir_lib

_PHASE = 'row_sparse'

# Largest difference allowed, as a share of the largest value.
_TOLERANCE = 1e-5

# Gates move by whole steps of Adam, which divides rounding by rounding where a
# gradient is nearly zero; their losses must agree to this.
_LEARNED = 1e-3


def row_sparse(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Times products, evaluation and pruning and writes row_sparse.json.

  Args:
    config: see experiments/benchmarks/row_sparse.py.
    workdir: receives row_sparse.json.

  Returns:
    The content of row_sparse.json; seconds are in ms.

  Raises:
    ValueError: there are too few repetitions, or a result is not that of the
      dense product.
  """
  if config.repetitions < 1:
    raise ValueError(
      f'repetitions must be at least 1, got {config.repetitions}; choose e.g. '
      '20.'
    )
  result = {
    'products': [
      _time_product(config, tuple(shape), density)
      for shape in config.shapes
      for density in config.densities
    ],
    'models': [_time_model(config, density) for density in config.of_models],
    'repetitions': config.repetitions,
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
  path = pathlib.Path(workdir) / 'row_sparse.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  workdir_lib.write_json(path, result)
  metrics.say(_PHASE, f'written: {path}')
  return result


def _draw(rng, shape, density):
  """A random float32 array with exactly so many nonzero weights."""
  size = int(np.prod(shape))
  array = np.zeros(size, np.float32)
  chosen = rng.choice(size, max(1, int(size * density)), replace=False)
  array[chosen] = rng.standard_normal(chosen.size)
  return array.reshape(shape)


def _time_product(config, shape, density):
  """Forward, and forward with all gradients, of one matrix."""
  rng = np.random.default_rng(config.seed)
  matrix = jnp.asarray(_draw(rng, shape, density))
  x = jnp.asarray(rng.standard_normal((config.tokens, shape[0]), np.float32))
  w = ops.from_dense(matrix)
  dense, sparse = jax.jit(jnp.matmul), jax.jit(ops.row_sparse_matmul)
  feature_major = jax.jit(ops.feature_major_matmul)
  x_t = jnp.array(x.T)
  forward = _compare(
    f'{shape[0]}->{shape[1]} at 1/{1 / density:.0f}',
    {
      'dense': lambda: dense(x, matrix),
      'row_sparse': lambda: sparse(x, w),
      'feature_major': lambda: feature_major(x_t, w),
    },
    lambda name, y: y.T if name == 'feature_major' else y,
    config.repetitions,
  )

  @jax.jit
  def gradients(x, matrix):
    y, pull = jax.vjp(jnp.matmul, x, matrix)
    return pull(y)

  @jax.jit
  def sparse_gradients(x, w):
    def product(x, value):
      return ops.row_sparse_matmul(x, ops.RowSparse(value, w.layout, w.shape))

    y, pull = jax.vjp(product, x, w.value)
    return pull(y)

  backward = _compare(
    '  with dx and the dw of held weights',
    {
      'dense': lambda: gradients(x, matrix),
      'row_sparse': lambda: sparse_gradients(x, w),
    },
    # Of a dense gradient, what stands at the weights that are held.
    lambda name, g: (
      g if name != 'dense' else (g[0], g[1].T[jnp.nonzero(matrix.T)])
    ),
    config.repetitions,
  )
  return {
    'shape': shape,
    'tokens': config.tokens,
    'density': density,
    'forward': forward,
    'forward_and_backward': backward,
  }


def _time_model(config, density):
  """Evaluation and pruning of a frozen model with random weights."""
  model_config = GPTConfig(**config.model.to_dict())
  rng = np.random.default_rng(config.seed)
  tokens = rng.integers(
    0, model_config.vocab_size, (config.sequences, model_config.context_length)
  )
  params = jax.jit(GPT(model_config).init)(
    jax.random.key(config.seed), jnp.asarray(tokens[:1])
  )['params']
  for path in frozen.kernel_paths(model_config):
    shape = frozen.at(params, path).shape
    own = density * (config.unembedding if path[0] == 'lm_head' else 1)
    # As large a sum as a dense matrix has at the start.
    kernel = _draw(rng, shape, own) * 0.02 / np.sqrt(own)
    params = frozen.replace(params, path, jnp.asarray(kernel, jnp.float32))
  return {
    'density': density,
    'evaluation': _time_evaluation(config, model_config, params, tokens),
    **{
      f'pruning_{gates}': _time_pruning(
        config, model_config, params, rng, gates
      )
      for gates in ('nodes', 'edges')
    },
  }


def _time_evaluation(config, model_config, params, tokens):
  @jax.jit
  def evaluate(params, tokens):
    logits, _ = GPT(model_config).apply({'params': params}, tokens)
    chosen = jnp.take_along_axis(logits[:, :-1], tokens[:, 1:, None], axis=2)
    return jax.nn.logsumexp(logits[:, :-1], axis=2) - chosen[..., 0]

  running = {
    products: frozen.freeze(model_config, params, products)
    for products in ('dense', 'auto')
  }
  tokens = jnp.asarray(tokens)
  return _compare(
    'evaluation, loss of every token',
    {
      products: functools.partial(evaluate, one, tokens)
      for products, one in running.items()
    },
    lambda _, losses: losses,
    config.repetitions,
  )


def _time_pruning(config, model_config, params, rng, gates):
  """Ten steps of learning gates, as a prune run takes them."""
  hyper = PruneConfig(
    gates=gates, steps=10, batch_pairs=config.batch_pairs, calibrate='after'
  )
  shape = (config.batch_pairs, 2, config.prompt)
  pairs = Pairs(
    jnp.asarray(rng.integers(0, model_config.vocab_size, shape), jnp.int32),
    jnp.full(shape[:2], config.prompt - 1, jnp.int32),
    jnp.tile(jnp.asarray([0, 1], jnp.int32), (config.batch_pairs, 1)),
  )
  values = {
    site: jnp.zeros(width)
    for site, width in constant_sites(model_config).items()
  }

  def learn(products):
    model = gated_model.make(
      model_config, params, values, 'mean', products=products
    )
    sizes = gated_model.unit_sizes(model, gates)
    return lambda: pruning.optimize(model, pairs, sizes, hyper, config.seed)

  return _compare(
    f'pruning, 10 steps, gates on {gates}',
    {products: learn(products) for products in ('dense', 'auto')},
    lambda _, found: np.asarray(found.history['task_loss']),
    config.repetitions,
    _LEARNED,
  )


def _compare(
  title: str,
  ways: Mapping[str, Callable[[], Any]],
  comparable: Callable[[str, Any], Any],
  repetitions: int,
  tolerance: float = _TOLERANCE,
) -> dict[str, Any]:
  """Checks that all ways agree with the first one, then times them in turns."""
  results = {name: comparable(name, way()) for name, way in ways.items()}
  wanted = results.pop('dense')
  errors = {name: _difference(found, wanted) for name, found in results.items()}
  for name, error in errors.items():
    if not error <= tolerance:
      raise ValueError(
        f'{name} must agree with dense to {tolerance} before it is timed, got '
        f'a difference of {error} in {title.strip()}; report this.'
      )
  del results, wanted
  seconds = {name: [] for name in ways}
  for _ in range(repetitions):
    for name, way in ways.items():
      begun = time.perf_counter()
      jax.block_until_ready(way())
      seconds[name].append(time.perf_counter() - begun)
  medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
  shown = ', '.join(
    f'{name} {taken * 1e3:.1f} ms ({medians["dense"] / taken:.1f}x)'
    for name, taken in medians.items()
  )
  metrics.say(_PHASE, f'{title}: {shown}')
  return {
    name: {
      'median_ms': medians[name] * 1e3,
      'quartiles_ms': (np.quantile(taken, [0.25, 0.75]) * 1e3).tolist(),
      'times_dense': medians['dense'] / medians[name],
      'largest_difference': errors.get(name, 0.0),
    }
    for name, taken in seconds.items()
  }


def _difference(found: Any, wanted: Any) -> float:
  """Largest difference over the largest value, of the worst array."""
  worst = 0.0
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
  for one, other in pairs:
    scale = max(float(jnp.max(jnp.abs(other))), 1e-30)
    worst = max(worst, float(jnp.max(jnp.abs(one - other))) / scale)
  return worst
