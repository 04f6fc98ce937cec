"""Is the circuit the behaviour? Losses that say so, with intervals.

All are task losses (see `task_loss`) in nats: ln 2 = 0.69 knows nothing.

  full_loss        the model as it is
  test_loss        the circuit alone, calibrated, on test pairs: sufficiency
  train_loss       the same on the training pairs given
  raw_loss         the circuit alone on test pairs, without calibration
  necessity_loss   the model without the circuit: its nodes at their means
  random_loss      random circuits with as many nodes at each site, each
                   calibrated like the circuit; mean over several seeds

Removed nodes are at their mean over pretraining text in all of them. Intervals
are 95 % bootstrap percentiles over pairs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits import calibration, selection
from sparse_interp.circuits.gates import Gates
from sparse_interp.circuits.task_loss import (
  Pairs,
  differences_in_batches,
  pair_losses,
)
from sparse_interp.models import GPTConfig

FORMULAS = {
  'test_loss': 'task loss of the circuit with scale and shift, test pairs',
  'necessity_loss': 'task loss of the full model with the circuit ablated',
  'random_loss': 'task loss of random circuits of the same size per site, '
  'each with its own scale and shift, mean over seeds',
  'interval': '95 % bootstrap percentiles over pairs',
}


def bootstrap_interval(
  values: Float[np.ndarray, 'pairs'], seed: int, resamples: int = 1000
) -> list[float]:
  """95 % percentile interval of the mean over pairs, [low, high]."""
  rng = np.random.default_rng(seed)
  draws = rng.integers(0, values.size, (resamples, values.size))
  means = np.asarray(values, np.float64)[draws].mean(axis=1)
  return np.quantile(means, [0.025, 0.975]).tolist()


def evaluate_model(
  config: GPTConfig,
  params: dict,
  means: Gates,
  pairs: Pairs,
  conditions: Sequence[str],
  seed: int,
) -> dict[str, Any]:
  """Task loss of the full model, over all pairs and per condition.

  Args:
    config: the model.
    params: its parameters.
    means: {site: width of values}; only the sites matter here.
    pairs: test pairs.
    conditions: of each pair.
    seed: of the bootstrap.

  Returns:
    {'full_loss', 'full_loss_interval', 'full_accuracy', 'full_conditions'};
    accuracy is the share of prompts whose own answer has the larger logit.
  """
  ones = {site: np.ones(len(mean), np.float32) for site, mean in means.items()}
  differences = differences_in_batches(config, params, means, ones, pairs)
  losses = np.asarray(pair_losses(differences))
  by_condition = {
    name: float(losses[np.asarray(conditions) == name].mean())
    for name in sorted(set(conditions))
  }
  return {
    **_summary('full_loss', losses, seed),
    'full_accuracy': float(np.mean(differences * [1, -1] > 0)),
    'full_conditions': by_condition,
  }


def evaluate(
  config: GPTConfig,
  params: dict,
  means: Gates,
  nodes: Mapping[str, Int[np.ndarray, '_']],
  calibrated: tuple[float, float],
  train: Pairs,
  test: Pairs,
  conditions: Sequence[str],
  seed: int,
  random_circuits: int = 3,
) -> dict[str, Any]:
  """Every loss of a circuit that the module's description names.

  Args:
    config: the model.
    params: its parameters.
    means: {site: values that removed nodes take} for the sites of `nodes`.
    nodes: {site: kept channels}.
    calibrated: scale and shift of the circuit.
    train: pairs on which it was calibrated, and random circuits will be.
    test: pairs that nothing was fitted to.
    conditions: of each test pair.
    seed: of bootstrap and random circuits.
    random_circuits: how many are averaged.
  """
  sites = {site: len(mean) for site, mean in means.items()}

  def differences(gates, pairs):
    return differences_in_batches(config, params, means, gates, pairs)

  gates = selection.gates_of(nodes, sites)
  on_test = differences(gates, test)
  test_losses = np.asarray(pair_losses(on_test, *calibrated))
  on_train = np.asarray(pair_losses(differences(gates, train), *calibrated))
  complement = {site: 1 - gate for site, gate in gates.items()}
  necessity = np.asarray(pair_losses(differences(complement, test)))
  random_losses = []
  for i in range(random_circuits):
    # Seeds of different circuits are far apart, whatever `seed` is.
    chosen = selection.random_like(nodes, sites, seed + 1000 * (i + 1))
    fitted = calibration.fit(differences(chosen, train))
    losses = pair_losses(differences(chosen, test), *fitted)
    random_losses.append(np.asarray(losses))
  of_conditions = {
    name: float(test_losses[np.asarray(conditions) == name].mean())
    for name in sorted(set(conditions))
  }
  return {
    **evaluate_model(config, params, means, test, conditions, seed),
    **_summary('test_loss', test_losses, seed),
    **_summary('train_loss', on_train, seed),
    **_summary('raw_loss', np.asarray(pair_losses(on_test)), seed),
    **_summary('necessity_loss', necessity, seed),
    **_summary('random_loss', np.mean(random_losses, axis=0), seed),
    'test_conditions': of_conditions,
    'random_circuits': random_circuits,
    'test_pairs': int(test.last.shape[0]),
  }


def _summary(
  name: str, losses: Float[np.ndarray, 'pairs'], seed: int
) -> dict[str, Any]:
  return {
    name: float(losses.mean()),
    f'{name}_interval': bootstrap_interval(losses, seed),
  }
