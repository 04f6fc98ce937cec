"""What a closed circuit lists is what computes, and nothing else does."""

import types

import numpy as np
import pytest

from sparse_interp.circuits import faithfulness, find
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.gating.gated_model import all_outputs
from sparse_interp.circuits.gating.losses import pair_losses
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting import necessity
from sparse_interp.circuits.selecting.from_ranking import Unprunable
from tests.circuits import trial_models

_CHANCE = np.log(2)


def _loss(units, chosen, pairs):
  keep = units.mask_of(chosen)
  found = all_outputs(units.model, units.gates(keep), pairs)
  return float(np.mean(pair_losses(found)))


def _full_loss(units, pairs):
  return float(np.mean(pair_losses(all_outputs(units.model, {}, pairs))))


_WITHOUT_THE_VALUE = {
  '0.attn.act_in': [0, 1],
  '0.attn.q': [4],
  '0.attn.k': [4],
  '0.attn.resid_delta': [3],
  'final_resid': [3],
}
_WITHOUT_THE_COMPETITOR = {
  '0.mlp.act_in': [0, 1],
  '0.mlp.post_act': [0],
  '0.mlp.resid_delta': [3],
  'final_resid': [3],
}


def test_a_removed_value_tells_how_much_of_it_the_sink_took_unless_closed():
  pairs = make_pairs(trial_models.known_task(32, 0))
  units = trial_models.share_of_the_sink()
  assert _full_loss(units, pairs) < 0.01
  assert _loss(units, _WITHOUT_THE_VALUE, pairs) < 0.01
  units = trial_models.share_of_the_sink(closed=True)
  assert _full_loss(units, pairs) < 0.01
  np.testing.assert_allclose(
    _loss(units, _WITHOUT_THE_VALUE, pairs), _CHANCE, atol=1e-4
  )
  with_it = {**_WITHOUT_THE_VALUE, '0.attn.v': [4]}
  assert _loss(units, with_it, pairs) < 0.01


@pytest.mark.parametrize('site', ['mlp_neuron', 'mlp_in'])
def test_a_removed_competitor_outdoes_a_kept_node_unless_closed(site):
  pairs = make_pairs(trial_models.task_with_evidence_last(32, 0))
  chosen = dict(_WITHOUT_THE_COMPETITOR)
  if site == 'mlp_in':
    chosen['0.mlp.act_in'] = [1]
  units = trial_models.a_competitor(site)
  assert _full_loss(units, pairs) < 0.01
  assert _loss(units, chosen, pairs) < 0.01
  units = trial_models.a_competitor(site, closed=True)
  assert _full_loss(units, pairs) < 0.01
  assert _loss(units, chosen, pairs) > _CHANCE - 1e-3


def _search(units, task, **fields):
  """What the search finds, and its measures on other pairs."""
  train = make_pairs(task(160, 0))
  config = PruneConfig(
    steps=40,
    selection_pairs=32,
    holdout_pairs=32,
    target_loss=0.1,
    margin=0.0,
    **fields,
  )
  found = find.find_units(units.model, train, config, seed=0)
  test = task(32, 1)
  return found, faithfulness.evaluate(
    found.units,
    found.keep,
    (found.scale, found.shift),
    train.take(np.arange(32)),
    make_pairs(test),
    test.conditions,
    seed=0,
    random_circuits=2,
    bounded=True,
  )


@pytest.mark.slow
def test_no_closed_circuit_is_found_without_the_head_that_sinks():
  task = trial_models.known_task
  open_units = trial_models.share_of_the_sink()
  found, metrics = _search(open_units, task, closed=False)
  assert not found.units.masks(found.keep)['0.attn.v'].any()
  assert metrics['test_loss'] < 0.1
  assert metrics['listed_loss'] > 0.6
  closed_units = trial_models.share_of_the_sink(closed=True)
  found, metrics = _search(closed_units, task)
  assert found.units.masks(found.keep)['0.attn.v'][4]
  assert metrics['test_loss'] < 0.1
  assert metrics['listed_loss'] == metrics['test_loss']


@pytest.mark.slow
def test_a_closed_circuit_holds_the_competitor_that_decides():
  task = trial_models.task_with_evidence_last
  units = trial_models.a_competitor('mlp_neuron', closed=True)
  found, metrics = _search(units, task)
  assert found.units.masks(found.keep)['0.mlp.post_act'][1]
  assert metrics['test_loss'] < 0.1


def test_no_circuit_is_credited_with_what_a_table_of_the_last_token_knows():
  train = make_pairs(trial_models.task_with_evidence_last(160, 0))
  units = trial_models.decided_by_the_last_token()
  assert _full_loss(units, train) < 0.01
  config = PruneConfig(
    ablation='mean', steps=10, selection_pairs=32, holdout_pairs=32
  )
  with pytest.raises(Unprunable, match='the empty circuit meets it'):
    find.find_units(units.model, train, config, seed=0)


_ONE_PATH_AND_THE_BIAS = {
  '0.attn.act_in': [0],
  '0.attn.v': [5],
  '0.attn.resid_delta': [3],
  '0.mlp.act_in': [1],
  '0.mlp.post_act': [0],
  '0.mlp.resid_delta': [3],
  'final_resid': [3],
}


def _without_shared_nodes(chosen):
  """What only this path has: the other one needs its ends, too."""
  own = ('0.attn.v', '0.mlp.post_act')
  return {site: kept for site, kept in chosen.items() if site in own}


def test_a_bias_is_no_ignorance():
  task = trial_models.known_task
  units = trial_models.two_paths_and_a_bias()
  test = task(32, 1)
  metrics = faithfulness.evaluate(
    units,
    units.mask_of(_without_shared_nodes(_ONE_PATH_AND_THE_BIAS)),
    (1.0, 0.0),
    make_pairs(task(32, 0)),
    make_pairs(test),
    test.conditions,
    seed=0,
    random_circuits=2,
    bounded=True,
  )
  # Raw, the model without them seems to know nothing.
  assert metrics['necessity_loss'] > 0.5
  assert metrics['calibrated_necessity_loss'] < 0.1
  assert metrics['ablated_ranked_right'] == 1


@pytest.mark.parametrize('bounded', [False, True])
def test_a_second_path_is_added_where_a_bias_does_not_count(bounded):
  units = trial_models.two_paths_and_a_bias()
  pairs = make_pairs(trial_models.known_task(32, 0))
  start = units.mask_of(_without_shared_nodes(_ONE_PATH_AND_THE_BIAS))
  keep = necessity.add_until_necessary(
    units, start, pairs, floor=0.6, bounded=bounded
  )
  assert (keep.sum() > start.sum()) == bounded


@pytest.mark.parametrize(
  ('ablation', 'closed'),
  [({'kind': 'mean'}, False), ({'kind': 'mean', 'closed': True}, True)],
)
def test_a_circuit_of_before_is_open(ablation, closed):
  assert Circuit.closed.fget(types.SimpleNamespace(ablation=ablation)) == closed
