"""Loss against size, on rankings that are known to be good."""

import dataclasses

import numpy as np
import pytest

from sparse_interp.circuits.gating import task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import ranks
from sparse_interp.circuits.selecting import (
  bisection,
  from_ranking,
  parted,
  sweep,
)

_CONFIG = PruneConfig(
  batch_pairs=8,
  selection_pairs=16,
  holdout_pairs=16,
  calibrate='after',
  min_necessity=None,
)
_UNREACHABLE = 1e-9


@pytest.fixture(scope='module')
def setup(known):
  """Units, data, and the ranking that has the true nodes first."""
  units = from_ranking.units_of(known.model, _CONFIG)
  data = parted.part(known.model, task_loss.make_pairs(known.train), _CONFIG)
  order = np.argsort(~known.true_units(units), kind='stable')
  return units, data, order


def _curve(setup, targets, **options):
  units, data, order = setup
  return sweep.curve(units, order, 8, data, _CONFIG, targets, **options)


def test_a_good_ranking_gives_sizes_that_fall_with_looser_targets(setup):
  points = _curve(setup, sweep.TARGETS)
  assert [point['target'] for point in points] == list(sweep.TARGETS)
  reached = [point for point in points if point['goal'] is not None]
  assert len(reached) >= 3
  for name in ('units', 'nodes', 'edges'):
    values = [point[name] for point in reached]
    assert values == sorted(values)
  at = {point['target']: point for point in points}
  assert (at[0.15]['nodes'], at[0.15]['edges']) == (4, 2)
  for point in reached:
    assert point['selection_loss'] <= point['goal'] < point['target']
    assert point['holdout_loss'] <= point['target']


def test_what_the_full_model_misses_is_unreachable(setup):
  reached, missed = _curve(setup, (0.15, _UNREACHABLE))
  assert reached['edges'] == 2
  assert missed.pop('target') == _UNREACHABLE
  assert set(missed.values()) == {None}


@pytest.mark.slow
def test_elimination_mends_a_bad_ranking(setup):
  units, data, order = setup
  bad = (units, data, order[::-1].copy())
  (bisected,) = _curve(bad, (0.15,))
  (eliminated,) = _curve(bad, (0.15,), eliminated=True)
  assert bisected['edges'] > eliminated['edges'] == 2
  assert eliminated['selection_loss'] <= eliminated['goal']


def test_no_size_is_answered_twice(setup, monkeypatch):
  units, data, order = setup
  asked = []
  ranked = bisection.Ranked(units, order, data.chosen, _CONFIG)
  (answer,) = ranked._answers
  counted = lambda keep, batch: asked.append(keep.sum()) or answer(keep, batch)  # noqa: E731
  monkeypatch.setattr(ranked, '_answers', [counted])
  for goal in (0.4, 0.1, 0.4):
    ranked.smallest(goal, 8)
  assert len(asked) == len(set(asked)) > 0


def test_circuits_of_one_size_are_told_apart(setup):
  units, data, order = setup
  ranked = bisection.Ranked(units, order, data.chosen, _CONFIG)
  right, wrong = (ranks.top(one, 4) for one in (order, order[::-1]))
  assert ranked.loss(right) <= 0.15 < ranked.loss(wrong)
  assert ranked.loss(right) <= 0.15


def test_edges_can_be_swept_too(setup):
  nodes, data, _ = setup
  config = dataclasses.replace(_CONFIG, gates='edges')
  units = from_ranking.units_of(nodes.model, config)
  order = np.arange(units.count)
  (point,) = sweep.curve(units, order, 8, data, config, (0.15,))
  assert 2 <= point['edges'] <= point['units'] <= order.size


@pytest.mark.parametrize(
  ('target', 'full_loss', 'goal'),
  [(0.15, 0.01, 0.12), (0.15, 0.14, 0.145), (0.005, 0.001, 0.003)],
)
def test_goals_are_between_the_full_model_and_the_target(
  target, full_loss, goal
):
  assert bisection.goal_for(target, 0.03, full_loss) == pytest.approx(goal)


def test_geometric_means_are_over_the_tasks_that_reach_a_target():
  def points(*edges):
    return [
      {'target': target, 'edges': count}
      for target, count in zip((0.5, 0.15, 0.05), edges, strict=True)
    ]

  curves = {'a': points(0, 4, None), 'b': points(9, 16, None)}
  assert sweep.geometric_means(curves) == [
    {'target': 0.5, 'edges': pytest.approx(3.0), 'tasks': 2},
    {'target': 0.15, 'edges': pytest.approx(8.0), 'tasks': 2},
    {'target': 0.05, 'edges': None, 'tasks': 0},
  ]
  assert sweep.geometric_means({}) == []
