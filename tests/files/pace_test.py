"""The rest takes as long as what is done did, for each."""

import time

import pytest

from sparse_interp.files import pace


def test_what_is_left_goes_at_the_pace_so_far(monkeypatch):
  monkeypatch.setattr(time, 'monotonic', lambda: 130.0)
  assert pace.seconds_left(100.0, 3, 5) == pytest.approx(20)
  assert pace.seconds_left(100.0, 5, 5) == 0
