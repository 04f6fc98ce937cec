"""Loops over pairs say how far they are, and how long it will take."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import counting, faithfulness
from sparse_interp.circuits.gating import gated_model, task_loss


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(counting.time, 'monotonic', lambda: now[0])
  return now


def test_nobody_who_listens_costs_nothing():
  assert counting.counting(None, 'measure') is None


def test_time_left_is_that_of_all_passes(clock):
  shown = []
  count = counting.counting(shown.append, 'measure', passes=2)
  for done in (5, 10, 5, 10):
    clock[0] += 1
    count(done, 10)
  assert [one['pairs'] for one in shown] == [5, 10, 15, 20]
  assert [one['seconds_left'] for one in shown] == [3, 2, 1, 0]
  assert {one['of'] for one in shown} == {20}
  assert {one['phase'] for one in shown} == {'measure'}


def test_the_model_says_after_every_batch_how_far_it_is(known):
  pairs = task_loss.make_pairs(known.train)
  many = pairs.take(np.arange(70) % pairs.size)
  seen = []
  counted = gated_model.all_outputs(
    known.model, {}, many, count=lambda *numbers: seen.append(numbers)
  )
  assert seen == [(32, 70), (64, 70), (70, 70)]
  np.testing.assert_array_equal(
    counted, gated_model.all_outputs(known.model, {}, many)
  )


def test_measuring_a_circuit_counts_up_to_the_end_of_all_passes(known):
  shown = []
  train, test = (task_loss.make_pairs(t) for t in (known.train, known.test))
  faithfulness.evaluate(
    known.units,
    known.true_units(known.units),
    (1.0, 0.0),
    train,
    test,
    known.test.conditions,
    seed=0,
    random_circuits=2,
    progress=shown.append,
  )
  done = [one['pairs'] for one in shown]
  assert done == sorted(done)
  # Ablations of its own, three and sixteen draws of subsets, random circuits.
  assert done[-1] == shown[-1]['of'] == (5 + 3 + 16 + 2) * test.size
  assert jnp.isfinite(shown[0]['seconds_left'])
