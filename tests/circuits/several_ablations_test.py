"""Circuits that hold under several ablations at once."""

import dataclasses

import numpy as np
import pytest

from sparse_interp.circuits import find
from sparse_interp.circuits.gating.ablation_names import (
  TOGETHER,
  check_ablation,
  kinds_of,
)
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting import bisection, droppable
from tests.circuits import trial_models

ALL = ', '.join(TOGETHER)


@pytest.mark.parametrize('ablation', ['mean', 'zero', ALL, 'subsets,resample'])
def test_ablations_that_can_be_asked_for_together(ablation):
  check_ablation(ablation)
  assert PruneConfig(ablation=ablation).ablation == ablation
  assert all(kind == kind.strip() for kind in kinds_of(ablation))


@pytest.mark.parametrize(
  'ablation', ['', 'mean,', 'mean,mean', 'mean,zero', 'noise', 'mean noise']
)
def test_others_are_refused_in_one_line(ablation):
  with pytest.raises(
    ValueError, match=r'^ablation must be one of .*choose e\.g'
  ):
    check_ablation(ablation)


_CONFIG = PruneConfig(
  steps=60,
  selection_pairs=32,
  holdout_pairs=32,
  target_loss=0.15,
  margin=0.0,
  min_necessity=None,
)


def _values_kept(ablation):
  """Which of the two paths a circuit has, of a model that has both."""
  units = trial_models.two_paths_and_a_bias(closed=True, bias=False)
  model = units.model.under(ablation)
  config = dataclasses.replace(_CONFIG, ablation=ablation)
  train = make_pairs(trial_models.known_task(160, 0))
  found = find.find_units(model, train, config, seed=0)
  return found, np.flatnonzero(found.units.masks(found.keep)['0.attn.v'])


@pytest.mark.slow
def test_a_path_that_speaks_against_the_circuit_belongs_to_it():
  _, one = _values_kept('mean')
  assert len(one) == 1
  # What is removed says the opposite: neither path suffices alone.
  _, both = _values_kept(ALL)
  assert both.tolist() == [4, 5]


@pytest.mark.slow
def test_the_largest_loss_counts():
  found, _ = _values_kept('mean')
  batch = make_pairs(trial_models.known_task(32, 1))
  order = np.arange(found.keep.size)
  losses = {}
  for ablation in (*TOGETHER, ALL):
    units = dataclasses.replace(
      found.units, model=found.units.model.under(ablation)
    )
    ranked = bisection.Ranked(units, order, batch, _CONFIG)
    losses[ablation] = ranked.loss(found.keep)
  assert losses['mean'] < 0.15 < losses['counterfactual']
  # It is not looked at further ones once it is beyond the target.
  assert losses[ALL] in losses.values()
  assert losses[ALL] > 0.15


@pytest.mark.slow
def test_units_that_are_not_needed_are_counted():
  found, _ = _values_kept('mean')
  batch = make_pairs(trial_models.known_task(32, 1))
  count = lambda keep: droppable.count_droppable(  # noqa: E731
    found.units, keep, batch, _CONFIG
  )
  assert count(found.keep) == 0
  larger = found.keep.copy()
  larger[np.flatnonzero(~larger)[:3]] = True
  assert count(larger) >= 3


def test_the_published_recipe_keeps_what_is_given():
  published = PruneConfig(recipe='published')
  assert not published.closed
  assert not published.bounded
  assert published.ablation == 'mean'
  assert published.calibrate == 'after'
  assert published.min_necessity is None
  assert PruneConfig(recipe='published', ablation='zero').ablation == 'zero'
  assert PruneConfig(**dataclasses.asdict(published)) == published
  with pytest.raises(ValueError, match='recipe must be one of closed, publ'):
    PruneConfig(recipe='other')
