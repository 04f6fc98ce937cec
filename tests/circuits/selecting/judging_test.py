"""Circuits are found by the end of their interval, not by their mean."""

import numpy as np

from sparse_interp.circuits.selecting.judging import Tried, best


def test_the_end_of_the_interval_decides():
  keep = np.ones(2, bool)
  small = Tried(keep, 5, 1.0, 0.0, holdout_loss=0.10, holdout_high=0.17)
  large = Tried(keep, 9, 1.0, 0.0, holdout_loss=0.12, holdout_high=0.14)
  assert best([small, large], 0.15) is large
  assert best([small, large], 0.2) is small
  assert best([small, large], 0.1) is large
