"""Bounds of a circuit, and its numbers in the summary."""

import numpy as np
import pytest

from sparse_interp.circuits.circuit import Circuit, Edges
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.models import GPTConfig
from sparse_interp.runs import prune_report


def _circuit(**measures):
  near = lambda value: [value - 0.01, value + 0.01]  # noqa: E731
  metrics = {
    f'{name}_interval': near(value)
    for name, value in measures.items()
    if name not in ('size_share', 'listed_excess', 'under')
  } | measures
  two = np.zeros(2, np.int32)
  return Circuit(
    task='a',
    description='',
    config=GPTConfig(vocab_size=4, n_layer=1, d_model=4, d_head=4),
    gates='edges',
    sites={'final_resid': 4},
    nodes={'final_resid': np.arange(3)},
    edges=Edges(two, two, two, two, two.astype(np.float32)),
    means={},
    scores={},
    scale=3.5,
    shift=-0.25,
    ablation={'kind': 'zero', 'over': 'nothing'},
    formula={},
    metrics=metrics | {'test_conditions': {}},
    prune_config={},
    history={},
    examples=[],
    example_tokens=np.zeros((0, 1), np.int32),
    activations={},
    provenance={},
  )


MEASURES = {
  'test_loss': 0.1,
  'raw_loss': 0.9,
  'test_kl': 0.2,
  'raw_kl': 0.8,
  'necessity_loss': 0.9,
  'calibrated_necessity_loss': 0.65,
  'random_loss': 0.6,
  'listed_excess': 0.001,
  'size_share': 0.02,
}


def test_raw_losses_scale_and_shift_stand_beside_the_calibrated_ones():
  found = prune_report.report(
    _circuit(**MEASURES), PruneConfig(ablation='mean')
  )['circuit']
  assert {name: found[name] for name in MEASURES} == MEASURES
  assert (found['scale'], found['shift']) == (3.5, -0.25)
  assert found['bounds'] == {
    'loss_calibrated <= 0.15': True,
    'listed_excess <= 0.02': True,
    'necessity_calibrated >= 0.5': True,
    'random_loss >= 0.5': True,
    'size_share <= 0.1': True,
  }


@pytest.mark.parametrize(
  ('name', 'value', 'missed'),
  [
    # The end of the interval counts, 0.01 away.
    ('test_loss', 0.145, 'loss_calibrated <= 0.15 with 0.145'),
    ('calibrated_necessity_loss', 0.505, 'necessity_calibrated >= 0.5 with'),
    ('random_loss', 0.4, 'random_loss >= 0.5 with 0.400'),
    ('listed_excess', 0.2, 'listed_excess <= 0.02 with 0.200'),
    ('size_share', 0.4, 'size_share <= 0.1 with 0.400'),
  ],
)
def test_a_circuit_that_misses_a_bound_says_which(name, value, missed):
  entry = prune_report.report(
    _circuit(**{**MEASURES, name: value}), PruneConfig(ablation='mean')
  )
  assert entry['circuit'] is None
  (said,) = entry['failed_circuit']['missed']
  assert said.startswith(missed)
  assert said in entry['reason']


def test_a_raw_loss_beyond_ln_2_is_not_necessity():
  measured = {**MEASURES, 'necessity_loss': 5.0}
  measured['calibrated_necessity_loss'] = 0.1
  entry = prune_report.report(
    _circuit(**measured), PruneConfig(ablation='mean')
  )
  (said,) = entry['failed_circuit']['missed']
  assert said.startswith('necessity_calibrated >= 0.5 with 0.100')


def test_what_was_not_measured_is_not_met():
  measured = {k: v for k, v in MEASURES.items() if k != 'listed_excess'}
  entry = prune_report.report(
    _circuit(**measured), PruneConfig(ablation='mean')
  )
  assert entry['failed_circuit']['missed'] == [
    'listed_excess, which was not measured'
  ]


def test_a_target_on_kl_is_compared_with_kl():
  config = PruneConfig(target_on='kl', target_loss=0.15, ablation='mean')
  entry = prune_report.report(_circuit(**MEASURES), config)
  (said,) = entry['failed_circuit']['missed']
  assert said.startswith('kl <= 0.15 with 0.200')


def test_every_ablation_that_was_asked_for_has_its_bound():
  config = PruneConfig(ablation='mean,resample')
  other = {'test_loss': 0.3, 'test_loss_interval': [0.29, 0.31]}
  entry = prune_report.report(
    _circuit(**MEASURES, under={'mean': {}, 'resample': other}), config
  )
  (said,) = entry['failed_circuit']['missed']
  assert said.startswith('loss_resample <= 0.15 with 0.300')
