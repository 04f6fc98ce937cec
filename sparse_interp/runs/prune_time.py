"""Time of evaluating and of pruning a frozen model, dense against sparse.

The model has random weights of the asked density: what is timed does not depend
on what was learned. Products with all weights and products with the nonzero
ones alone must agree before either is timed; then they take turns, each once
for the memory of the other to be given back and once on time, as in a job of
thousands of steps. They are compared without AbsTopK, which makes a jump of a
rounding now and then.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from sparse_interp.benchmarks.about import about
from sparse_interp.benchmarks.case import error_of
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import pruning
from sparse_interp.files import sealed
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPT, GPTConfig, frozen
from sparse_interp.models.sites import constant_sites
from sparse_interp.ops.topk import topk
from sparse_interp.training import hosts, metrics, ranges
from sparse_interp.training import state as state_lib

_PHASE = 'prune_time'
PRODUCTS = ('dense', 'row_sparse')
# Sums in another order; relative to the largest number.
_TOLERANCE = 1e-3


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Times both products at every density and writes prune_time.json.

  Densities that are done are in the workdir; the same command goes on.

  Args:
    config: see experiments/benchmarks/pruning.py.
    workdir: receives prune_time.json and densities/.

  Returns:
    The content of prune_time.json.

  Raises:
    ValueError: a field is wrong, or the products disagree.
  """
  ranges.check_seed(config)
  ranges.check_whole(
    config,
    dict.fromkeys(
      ('repetitions', 'batch_size', 'pairs', 'batch_pairs', 'steps'), 1
    )
    | {'pair_length': 2},
  )
  ranges.check_number(config, 'budget', least=0)
  for density in config.densities:
    if not (isinstance(density, int | float) and 0 < density <= 1):
      raise ValueError(
        f'densities must be numbers in (0, 1], got {density!r}; give e.g. '
        '(0.015625,).'
      )
  model = GPTConfig(**config.model.to_dict())
  facts = about(workdir_lib.code_version())
  asked = config.to_dict() | {'machine': facts['versions']}
  del asked['budget']
  if config.pair_length > model.context_length:
    raise ValueError(
      f'pair_length must be at most model.context_length, '
      f'{model.context_length}, got {config.pair_length}; choose less.'
    )
  with hosts.claimed(workdir, asked, _PHASE):
    return _time(config, model, facts, pathlib.Path(workdir))


def _time(
  config: config_dict.ConfigDict,
  model: GPTConfig,
  facts: dict[str, Any],
  workdir: pathlib.Path,
) -> dict[str, Any]:
  begun, rows = time.monotonic(), []
  for i, density in enumerate(config.densities):
    path = workdir / 'densities' / f'{density:.6g}.json'
    if not path.exists():
      if time.monotonic() - begun > config.budget:
        metrics.say(_PHASE, 'budget spent; the same command goes on')
        break
      sealed.write_json(path, _at_density(config, model, density))
    rows.append(sealed.read_json(path, 'delete it and run again'))
    metrics.say(_PHASE, f'{i + 1}/{len(config.densities)} {_line(rows[-1])}')
  result = {'about': facts, 'config': config.to_dict(), 'densities': rows}
  workdir_lib.write_json(workdir / 'prune_time.json', result)
  return result


def _at_density(
  config: config_dict.ConfigDict, model: GPTConfig, density: float
) -> dict[str, Any]:
  params = sparse_params(model, density, config.seed)
  smooth = dataclasses.replace(model, activation_density=None)
  jobs = {
    'evaluate': lambda model, how: _evaluation(config, model, params, how),
    'prune': lambda model, how: _pruning(config, model, params, how),
  }
  row = {'density': density}
  for job, make in jobs.items():
    results = [make(smooth, products)() for products in PRODUCTS]
    error, wrong = error_of(*results, exact=False)
    if wrong or error > _TOLERANCE:
      raise ValueError(
        f'{job} at density {density} must be equal for {PRODUCTS}, got '
        f'{wrong or f"a difference of {error:.2g}"}; do not use the faster one.'
      )
    runs = {products: make(model, products) for products in PRODUCTS}
    seconds = {products: [] for products in PRODUCTS}
    for i in range(config.repetitions):
      for products, run in runs.items():
        run()
        started = time.perf_counter()
        run()
        seconds[products].append(time.perf_counter() - started)
      metrics.say(_PHASE, f'{job} 1/{1 / density:g}, round {i + 1}')
    row[job] = _summary(seconds) | {'error': error}
  return row


def _summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
  summary: dict[str, dict[str, Any]] = {}
  for products, values in seconds.items():
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) * 1e3
    summary[products] = {
      'median_ms': float(median),
      'quartiles_ms': [float(low), float(high)],
      'repetitions': len(values),
    }
  dense, ours = (summary[p]['median_ms'] for p in PRODUCTS)
  return summary | {'speedup': dense / ours}


def _line(row: dict[str, Any]) -> str:
  ratios = ', '.join(
    f'{job} {row[job]["speedup"]:.2f} x' for job in ('evaluate', 'prune')
  )
  return f'density 1/{1 / row["density"]:g}: {ratios} as fast as dense'


def sparse_params(model: GPTConfig, density: float, seed: int) -> dict:
  """Random parameters whose kernels have int(density * size) weights."""
  params = state_lib.init_params(GPT(model), jax.random.key(seed))

  def thin(path, leaf):
    if path[-1].key != 'kernel':
      return leaf
    count = max(1, int(density * leaf.size))
    # Louder as there are fewer, so that activations stay of one size.
    kept = jnp.where(topk.keep_mask(leaf, count), leaf, 0)
    return kept * jnp.sqrt(1 / density).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(thin, params)


def _evaluation(
  config: config_dict.ConfigDict,
  model: GPTConfig,
  params: dict,
  products: str,
) -> Callable[[], Any]:
  """Loss on one batch of random tokens, token by token."""
  running = frozen.freeze(model, params, products)
  tokens = jax.random.randint(
    jax.random.key(1),
    (config.batch_size, model.context_length),
    0,
    model.vocab_size,
  )
  logits = jax.jit(
    lambda params, tokens: GPT(model).apply({'params': params}, tokens)[0]
  )
  return lambda: jax.block_until_ready(logits(running, tokens))


def _pruning(
  config: config_dict.ConfigDict,
  model: GPTConfig,
  params: dict,
  products: str,
) -> Callable[[], Any]:
  """Gates on nodes, learned for some steps on random pairs."""
  values = {
    site: np.zeros(width, np.float32)
    for site, width in constant_sites(model).items()
  }
  gated = gated_model.make(model, params, values, products=products)
  rng = np.random.default_rng(config.seed)
  shape = (config.pairs, 2, config.pair_length)
  tokens = rng.integers(0, model.vocab_size, shape, np.int32)
  pairs = Pairs(
    jnp.asarray(tokens),
    jnp.full(shape[:2], config.pair_length - 1),
    jnp.asarray(rng.integers(0, model.vocab_size, shape[:2], np.int32)),
  )
  asked = PruneConfig(
    steps=config.steps,
    batch_pairs=config.batch_pairs,
    products=products,
    init_attribution=0.0,
  )
  units = units_lib.make(gated, 'nodes')

  def run():
    found = pruning.optimize(units, pairs, asked, config.seed)
    return np.asarray(found.history['task_loss'])

  return run
