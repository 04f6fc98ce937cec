"""Losses of circuit, complement and chance, and their intervals."""

import numpy as np
import pytest

from sparse_interp.circuits import faithfulness
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model, losses, task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting import answers, necessity


def _evaluate(known, nodes):
  return faithfulness.evaluate(
    known.units,
    known.units.mask_of(nodes),
    (1.0, 0.0),
    task_loss.make_pairs(known.train),
    task_loss.make_pairs(known.test),
    known.test.conditions,
    seed=0,
  )


def test_the_true_circuit_suffices_and_is_necessary_and_no_accident(known):
  metrics = _evaluate(known, known.nodes)
  np.testing.assert_allclose(
    metrics['test_loss'], metrics['full_loss'], atol=1e-4
  )
  np.testing.assert_allclose(metrics['necessity_loss'], np.log(2), atol=1e-4)
  assert metrics['random_loss'] > 0.5
  assert metrics['full_accuracy'] == 1


def test_a_wrong_circuit_neither_suffices_nor_is_necessary(known):
  wrong = {'0.attn.act_in': [5], '0.attn.v': [1], 'final_resid': [6]}
  metrics = _evaluate(known, wrong)
  np.testing.assert_allclose(metrics['test_loss'], np.log(2), atol=1e-4)
  np.testing.assert_allclose(
    metrics['necessity_loss'], metrics['full_loss'], atol=1e-4
  )


def test_kl_of_the_true_circuit_is_zero_and_that_of_a_wrong_one_is_not(known):
  assert _evaluate(known, known.nodes)['test_kl'] < 1e-4
  assert _evaluate(known, {'0.attn.act_in': [5]})['test_kl'] > 0.5


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_units_are_added_until_the_rest_knows_nothing(known, gates):
  units = units_lib.make(known.model, gates)
  pairs = task_loss.make_pairs(known.train)
  keep = necessity.add_until_necessary(
    units, units.mask_of({}), pairs, floor=0.6
  )
  assert keep.sum() == 1
  # Any one unit of the only path will do.
  true = known.true_units(units)
  assert np.all(true[keep])
  rest = gated_model.all_outputs(known.model, units.gates_of_rest(keep), pairs)
  assert losses.pair_losses(rest).mean() >= 0.6


def test_a_tied_unit_is_added_as_one(known):
  units = units_lib.make(known.model, 'nodes', tie_qk=True)
  pairs = task_loss.make_pairs(known.train)
  keep = necessity.add_until_necessary(
    units, units.mask_of({}), pairs, floor=0.6
  )
  assert np.all(known.true_units(units)[keep])


def _mean(calibrate, target_on='task'):
  return PruneConfig(
    calibrate=calibrate, target_on=target_on, standard_errors=0.0
  )


def test_a_quiet_circuit_passes_only_under_its_calibration(known):
  quiet = np.tile(np.array([[0.1, -0.1]], np.float32), (32, 1))
  pairs = task_loss.make_pairs(known.test)
  raw = answers.selection_loss(pairs, quiet, _mean('after'))
  calibrated = answers.selection_loss(pairs, quiet, _mean('during'))
  np.testing.assert_allclose(raw, np.log1p(np.exp(-0.1)), rtol=1e-5)
  assert calibrated < 0.2


def test_a_loss_that_few_pairs_decide_is_less_sure(known):
  pairs = task_loss.make_pairs(known.test)
  even = np.tile(np.array([[0.5, -0.5]], np.float32), (32, 1))
  uneven = even * np.where(np.arange(32) % 8, 4, -2)[:, None]
  sure = PruneConfig(calibrate='after', standard_errors=2.0)
  for found in (even, uneven):
    single = np.asarray(pairs.losses(found))
    expected = single.mean() + 2 * single.std() / np.sqrt(32)
    np.testing.assert_allclose(
      answers.selection_loss(pairs, found, sure), expected, rtol=1e-5
    )
  mean = answers.selection_loss(pairs, even, _mean('after'))
  np.testing.assert_allclose(
    answers.selection_loss(pairs, even, sure), mean, rtol=1e-5
  )
  uneven_mean = answers.selection_loss(pairs, uneven, _mean('after'))
  assert answers.selection_loss(pairs, uneven, sure) > uneven_mean + 0.1


def test_a_target_on_kl_measures_kl(known):
  pairs = gated_model.add_full(known.model, task_loss.make_pairs(known.test))
  wrong = np.zeros((32, 2), np.float32)
  assert answers.selection_loss(pairs, pairs.full, _mean('after', 'kl')) < 1e-6
  np.testing.assert_allclose(
    answers.selection_loss(pairs, wrong, _mean('after', 'kl')),
    losses.kl_losses(wrong, pairs.full).mean(),
  )
