"""Losses of circuit, complement and chance, and their intervals."""

import numpy as np

from sparse_interp.circuits import (
  elimination,
  faithfulness,
  necessity,
  task_loss,
)


def test_bootstrap_depends_on_its_seed_only_and_covers_the_mean():
  values = np.random.default_rng(0).exponential(size=400)
  first = faithfulness.bootstrap_interval(values, seed=1)
  assert first == faithfulness.bootstrap_interval(values, seed=1)
  assert first != faithfulness.bootstrap_interval(values, seed=2)
  low, high = first
  assert low < values.mean() < high
  # 95 % of a mean of 400 with standard deviation 1: about +-0.098.
  np.testing.assert_allclose(high - low, 0.196, rtol=0.25)


def _evaluate(known, nodes):
  nodes = {s: np.array(nodes.get(s, []), int) for s in known.sites}
  return faithfulness.evaluate(
    known.config,
    known.params,
    known.means,
    nodes,
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


def test_nodes_are_added_until_the_rest_knows_nothing(known):
  nothing = {site: np.array([], int) for site in known.sites}
  pairs = task_loss.make_pairs(known.train)
  nodes = necessity.add_until_necessary(
    known.config, known.params, nothing, known.means, pairs, floor=0.6
  )
  added = {s: k.tolist() for s, k in nodes.items() if k.size}
  # Any one node of the only path will do.
  assert len(added) == 1
  assert all(known.nodes[site] == kept for site, kept in added.items())


def test_nodes_without_a_way_to_the_output_are_found(known):
  # 4.. reads noise; its value 1 has a kept writer, but channel 6 no reader.
  dangling = {
    '0.attn.act_in': [0, 5],
    '0.attn.q': [0, 4],
    '0.attn.v': [1, 5],
    '0.attn.resid_delta': [3, 6],
    '0.mlp.post_act': [2],
    'final_resid': [1, 3],
  }
  nodes = {s: np.array(dangling.get(s, []), int) for s in known.sites}
  loose = elimination.unconnected(known.config, known.params, nodes, True)
  assert {s: k.tolist() for s, k in loose.items() if k.size} == {
    '0.attn.act_in': [5],
    '0.attn.q': [0],
    '0.attn.v': [1],
    '0.attn.resid_delta': [6],
    '0.mlp.post_act': [2],
  }


def test_a_quiet_circuit_passes_only_under_its_calibration():
  quiet = np.tile(np.array([[0.1, -0.1]], np.float32), (8, 1))
  raw = elimination.selection_loss(quiet, 'after')
  calibrated = elimination.selection_loss(quiet, 'during')
  np.testing.assert_allclose(raw, np.log1p(np.exp(-0.1)), rtol=1e-5)
  assert calibrated < 0.2
