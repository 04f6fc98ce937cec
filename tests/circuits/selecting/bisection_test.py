"""Ranking without ties, and bisection to a minimal k."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sparse_interp.circuits.ranking import ranks
from sparse_interp.circuits.selecting import bisection


def test_units_clamped_to_the_same_bound_have_different_ranks():
  tau = np.array([1, -1, 1, 0.5, -1, -1], np.float32)
  tau_mean = np.array([0.7, -0.9, 0.8, 0.9, -0.2, -0.9], np.float32)
  order = ranks.rank(tau, tau_mean)
  # Final value first, then who got there earlier (or fell later), then index.
  assert order.tolist() == [2, 0, 3, 4, 1, 5]
  scores = ranks.scores(order)
  assert np.unique(scores).size == scores.size
  assert np.argsort(-scores).tolist() == order.tolist()
  assert scores.max() == 1


@hypothesis.given(
  st.lists(st.floats(0, 1), min_size=1, max_size=40),
  st.floats(0, 1),
  st.none() | st.integers(1, 50),
)
def test_bisection_ends_where_one_node_less_misses_the_target(
  losses, target, first_guess
):
  losses = [1.0, *losses]
  losses[-1] = 0.0  # Everything kept meets any target.
  order = np.random.default_rng(0).permutation(len(losses) - 1)
  seen = []

  def loss(keep):
    seen.append(int(keep.sum()))
    assert set(np.flatnonzero(keep)) == set(order[: seen[-1]])
    return losses[seen[-1]]

  k = bisection.bisect(order, loss, target, first_guess)
  assert losses[k] <= target
  assert k == 0 or losses[k - 1] > target
  grid = [2**i for i in range(10)] + [first_guess or 0]
  assert all(losses[size] > target for size in grid if size < k)
  assert len(seen) == len(set(seen))
  assert len(seen) <= 2 * np.log2(len(losses)) + 4


@hypothesis.given(st.integers(0, 4000), st.none() | st.integers(0, 5000))
def test_where_loss_falls_with_size_the_smallest_circuit_is_found(
  size, first_guess
):
  seen = []

  def loss(keep):
    seen.append(int(keep.sum()))
    return 0.0 if seen[-1] >= size else 1.0

  assert bisection.bisect(np.arange(4000), loss, 0.5, first_guess) == size
  assert max(seen) <= max(1, 2 * size, first_guess or 0)
  assert len(seen) <= 2 * np.log2(4000) + 3


@pytest.mark.parametrize('guess', [20, 60, 151, 1000, None])
def test_a_guess_that_misses_is_no_reason_to_go_up(guess):
  """Many small sizes meet the target, then hardly any does until the end."""

  def loss(keep):
    k = int(keep.sum())
    return 0.0 if 18 <= k <= 90 or k > 7200 else 1.0

  assert bisection.bisect(np.arange(7400), loss, 0.5, guess) <= 32


def test_a_guess_that_meets_is_never_exceeded():
  loss = lambda keep: 0.0 if keep.sum() in (151, 7400) else 1.0  # noqa: E731
  assert bisection.bisect(np.arange(7400), loss, 0.5, 151) == 151


@hypothesis.given(
  st.lists(st.sampled_from([-1.0, 1.0]), min_size=2, max_size=60),
  st.integers(0, 60),
)
def test_bisection_stops_at_any_size_though_all_gates_are_at_a_bound(tau, size):
  tau, size = np.array(tau), min(size, len(tau))
  # All that is left to tell them apart are means, many of them equal, too.
  tau_mean = np.round(np.random.default_rng(0).uniform(-1, 1, tau.size), 1)
  order = ranks.rank(tau, tau_mean)
  assert sorted(order) == list(range(tau.size))
  assert np.unique(ranks.scores(order)).size == tau.size
  loss = lambda keep: 0.0 if keep.sum() >= size else 1.0  # noqa: E731
  assert bisection.bisect(order, loss, 0.5, int((tau > 0).sum())) == size
