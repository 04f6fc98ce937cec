"""Bounds of a circuit, and its numbers in the summary."""

import numpy as np
import pytest

from sparse_interp.circuits.circuit import Circuit, Edges
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.models import GPTConfig
from sparse_interp.runs import prune_report


@pytest.mark.parametrize(
  ('losses', 'missed'),
  [
    ((0.1, 0.6, 0.6), []),
    ((0.16, 0.6, 0.6), ['test_loss <= 0.15']),
    ((0.1, 0.49, 0.4), ['necessity_loss >= 0.5', 'random_loss >= 0.5']),
  ],
)
def test_a_circuit_that_misses_a_bound_is_listed_with_what_it_missed(
  losses, missed
):
  met = prune_report.bounds(*losses, target=0.15)
  assert [bound for bound, is_met in met.items() if not is_met] == missed
  assert (
    next(iter(prune_report.bounds(*losses, 0.02, 'test_kl')))
    == 'test_kl <= 0.02'
  )


def _circuit(**losses):
  metrics = {f'{name}_interval': [0, 1] for name in losses} | losses
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


LOSSES = {
  'test_loss': 0.1,
  'raw_loss': 0.9,
  'test_kl': 0.2,
  'raw_kl': 0.8,
  'necessity_loss': 0.7,
  'random_loss': 0.6,
}


def test_raw_losses_scale_and_shift_stand_beside_the_calibrated_ones():
  found = prune_report.report(_circuit(**LOSSES), PruneConfig())['circuit']
  assert {name: found[name] for name in LOSSES} == LOSSES
  assert (found['scale'], found['shift']) == (3.5, -0.25)
  assert found['bounds'] == {
    'test_loss <= 0.15': True,
    'necessity_loss >= 0.5': True,
    'random_loss >= 0.5': True,
  }


def test_a_target_on_kl_is_compared_with_kl():
  config = PruneConfig(target_on='kl', target_loss=0.15)
  entry = prune_report.report(_circuit(**LOSSES), config)
  assert entry['circuit'] is None
  assert entry['failed_circuit']['missed'] == ['test_kl <= 0.15']
  assert entry['reason'] == (
    'the circuit found (3 nodes, 2 edges) missed test_kl <= 0.15 with 0.200'
  )
