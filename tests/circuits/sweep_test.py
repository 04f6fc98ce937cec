"""Loss against size, on rankings that are known to be good."""

import dataclasses

import numpy as np
import pytest

from sparse_interp.circuits import (
  bisection,
  from_ranking,
  sweep,
  task_loss,
)
from sparse_interp.circuits.prune_config import PruneConfig

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
  """Model, sizes, data, and the ranking that has the true nodes first."""
  model = known.model
  sizes = from_ranking.units_of(model, _CONFIG)
  data = from_ranking.part(model, task_loss.make_pairs(known.train), _CONFIG)
  order = np.argsort(~known.true_units(sizes), kind='stable')
  return model, sizes, data, order


def _curve(setup, targets, **options):
  model, sizes, data, order = setup
  return sweep.curve(model, order, 8, sizes, data, _CONFIG, targets, **options)


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


def test_elimination_mends_a_bad_ranking(setup):
  model, sizes, data, order = setup
  bad = (model, sizes, data, order[::-1].copy())
  (bisected,) = _curve(bad, (0.15,))
  (eliminated,) = _curve(bad, (0.15,), eliminated=True)
  assert bisected['edges'] > eliminated['edges'] == 2
  assert eliminated['selection_loss'] <= eliminated['goal']


def test_no_size_is_answered_twice(setup, monkeypatch):
  model, sizes, data, order = setup
  asked = []
  ranked = bisection.Ranked(model, order, sizes, data.chosen, _CONFIG)
  answer = ranked._answer
  monkeypatch.setattr(
    ranked,
    '_answer',
    lambda keep, batch: asked.append(keep.sum()) or answer(keep, batch),
  )
  for goal in (0.4, 0.1, 0.4):
    ranked.smallest(goal, 8)
  assert len(asked) == len(set(asked)) > 0


def test_edges_can_be_swept_too(setup):
  model, _, data, _ = setup
  config = dataclasses.replace(_CONFIG, gates='edges')
  sizes = from_ranking.units_of(model, config)
  order = np.arange(sum(sizes.values()))
  (point,) = sweep.curve(model, order, 8, sizes, data, config, (0.15,))
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
