import numpy as np
import pytest

from sparse_interp.circuits.recovery import auroc, set_scores


def test_precision_recall_and_f1_of_a_set():
  scores = set_scores({1, 2, 3, 4}, {3, 4, 5})
  assert scores['precision'] == pytest.approx(2 / 4)
  assert scores['recall'] == pytest.approx(2 / 3)
  assert scores['f1'] == pytest.approx(4 / 7)


def test_scores_of_nothing():
  assert set_scores(set(), {1})['f1'] == 0
  assert set_scores(set(), {1})['precision'] == 1
  assert set_scores({1}, set())['recall'] == 1
  assert set_scores(set(), set())['f1'] == 1


def test_auroc_counts_ties_half_and_knows_infinity():
  truth = np.array([True, True, False, False])
  assert auroc(np.array([4.0, 3.0, 2.0, 1.0]), truth) == 1
  assert auroc(np.array([1.0, 2.0, 3.0, 4.0]), truth) == 0
  assert auroc(np.ones(4), truth) == 0.5
  assert auroc(np.array([np.inf, np.inf, np.inf, 0.0]), truth) == 0.75
  assert auroc(np.ones(4), np.ones(4, bool)) is None


def test_auroc_is_the_share_of_pairs_in_order():
  rng = np.random.default_rng(0)
  scores, truth = rng.integers(0, 8, 200).astype(float), rng.random(200) < 0.3
  true, false = scores[truth][:, None], scores[~truth]
  expected = np.mean((true > false) + 0.5 * (true == false))
  assert auroc(scores, truth) == pytest.approx(expected, rel=1e-12)
