"""Is the circuit the behaviour? Losses that say so, with intervals.

All are task losses (see `task_loss`) in nats: ln 2 = 0.69 knows nothing.

  full_loss        the model as it is
  test_loss        the circuit alone, calibrated, on test pairs: sufficiency
  test_kl          KL(full model || circuit) of it on test pairs
  train_loss       test_loss on the training pairs given
  raw_loss         the circuit alone on test pairs, without calibration
  raw_kl           test_kl without calibration
  necessity_loss   the model without the circuit: its nodes or edges removed
  random_loss      random circuits with as many nodes at each site, or edges in
                   each matrix, each calibrated like the circuit; mean over
                   several seeds
  raw_random_loss  the same without calibration

What removed parts take is the model's ablation, the same in all of them.
Intervals are 95 % bootstrap percentiles over pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sparse_interp.circuits.counting import Count, Progress, counting
from sparse_interp.circuits.gating import calibration
from sparse_interp.circuits.gating.gated_model import GatedModel, all_outputs
from sparse_interp.circuits.gating.losses import kl_losses, pair_losses
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.circuits.units import Mask, Units

FORMULAS = {
  'test_loss': 'task loss of the circuit with scale and shift, test pairs',
  'raw_loss': 'the same with scale 1 and shift 0',
  'train_loss': 'test_loss on the train pairs that scale and shift were '
  'fitted to',
  'test_kl': 'KL(full model || circuit) over the two answers, test pairs, with '
  'scale and shift; raw_kl: with scale 1 and shift 0',
  'necessity_loss': 'task loss of the full model with the circuit ablated',
  'random_loss': 'task loss of random circuits of the same size per site '
  'or matrix, each with its own scale and shift, mean over seeds; '
  'raw_random_loss: with scale 1 and shift 0',
  'interval': '95 % bootstrap percentiles over pairs',
}


def bootstrap_interval(
  values: Float[np.ndarray, 'pairs'], seed: int, resamples: int = 1000
) -> list[float]:
  """95 % percentile interval of the mean over pairs, [low, high]."""
  from scipy import stats  # takes a second, which a start can do without

  if values.size == 1:  # scipy wants two; of one there is one mean
    return [float(values[0])] * 2
  found = stats.bootstrap(
    (np.asarray(values, np.float64),),
    np.mean,
    n_resamples=resamples,
    method='percentile',
    rng=np.random.default_rng(seed),
  )
  return [float(end) for end in found.confidence_interval]


def evaluate_model(
  model: GatedModel,
  pairs: Pairs,
  conditions: Sequence[str],
  seed: int,
  count: Count | None = None,
) -> dict[str, Any]:
  """Task loss of the full model, over all pairs and per condition.

  Args:
    model: the model; its ablation plays no part.
    pairs: test pairs.
    conditions: of each pair.
    seed: of the bootstrap.
    count: called as count(done, in all) now and then.

  Returns:
    {'full_loss', 'full_loss_interval', 'full_accuracy', 'full_conditions'};
    accuracy is the share of prompts whose own answer has the larger logit.
  """
  differences = all_outputs(model, {}, pairs, count=count)
  losses = np.asarray(pair_losses(differences))
  return {
    **_summary('full_loss', losses, seed),
    'full_accuracy': float(np.mean(differences * [1, -1] > 0)),
    'full_conditions': _by_condition(losses, conditions),
  }


def evaluate(
  units: Units,
  keep: Mask,
  calibrated: tuple[float, float],
  train: Pairs,
  test: Pairs,
  conditions: Sequence[str],
  seed: int,
  random_circuits: int = 3,
  progress: Progress | None = None,
) -> dict[str, Any]:
  """Every loss of a circuit that the module's description names.

  Args:
    units: of the model.
    keep: which of them are the circuit.
    calibrated: scale and shift of the circuit.
    train: pairs on which it was calibrated, and random circuits will be.
    test: pairs that nothing was fitted to.
    conditions: of each test pair.
    seed: of bootstrap and random circuits.
    random_circuits: how many are averaged.
    progress: called now and then with what there is to show.
  """
  count = counting(progress, 'measure', passes=4 + random_circuits)
  model, answer = units.model, answer_by_gates(units)
  answer_test = answer_by_gates(units, count)
  full = all_outputs(model, {}, test, count=count)
  on_test = answer_test(keep, test)
  test_losses = np.asarray(pair_losses(on_test, *calibrated))
  kl = np.asarray(kl_losses(on_test, full, *calibrated))
  on_train = np.asarray(pair_losses(answer(keep, train), *calibrated))
  rest = all_outputs(model, units.gates_of_rest(keep), test, count=count)
  random_losses, raw_random_losses = [], []
  for i in range(random_circuits):
    # Seeds of different circuits are far apart, whatever `seed` is.
    chosen = units.random_like(keep, seed + 1000 * (i + 1))
    fitted = calibration.fit(answer(chosen, train))
    by_chance = answer_test(chosen, test)
    random_losses.append(pair_losses(by_chance, *fitted))
    raw_random_losses.append(pair_losses(by_chance))
  return {
    **evaluate_model(model, test, conditions, seed, count),
    **_summary('test_loss', test_losses, seed),
    **_summary('test_kl', kl, seed),
    **_summary('train_loss', on_train, seed),
    **_summary('raw_loss', np.asarray(pair_losses(on_test)), seed),
    **_summary('raw_kl', np.asarray(kl_losses(on_test, full)), seed),
    **_summary('necessity_loss', np.asarray(pair_losses(rest)), seed),
    **_summary('random_loss', np.mean(random_losses, axis=0), seed),
    **_summary('raw_random_loss', np.mean(raw_random_losses, axis=0), seed),
    'test_conditions': _by_condition(test_losses, conditions),
    'random_circuits': random_circuits,
    'test_pairs': test.size,
  }


def _by_condition(losses, conditions):
  """Mean loss of the pairs of each condition."""
  return {
    name: float(losses[np.asarray(conditions) == name].mean())
    for name in sorted(set(conditions))
  }


def _summary(
  name: str, losses: Float[np.ndarray, 'pairs'], seed: int
) -> dict[str, Any]:
  return {
    name: float(losses.mean()),
    f'{name}_interval': bootstrap_interval(losses, seed),
  }
