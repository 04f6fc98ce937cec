"""Single moves are made where they cost least, by what they cost now."""

import numpy as np

from sparse_interp.circuits.selecting import elimination


def test_a_move_that_has_become_dear_waits_for_those_that_stayed_cheap():
  # Loss by what is left. Without 0 it costs much to leave out 1, too.
  losses = {(1, 2): 0.1, (0, 2): 0.2, (0, 1): 0.3, (2,): 0.9, (1,): 0.3}
  losses[0, 1, 2] = 0.0

  def loss(keep):
    return losses.get(tuple(np.flatnonzero(keep).tolist()), 9.0)

  def without(keep, units):
    trial = keep.copy()
    trial[units] = False
    return trial

  left = elimination._drop_singly(
    keep=np.ones(3, bool),
    moves=[np.array([i]) for i in range(3)],
    loss=loss,
    estimate=loss,
    without=without,
    weight=np.ones(3),
    target=1.0,
    show=lambda keep, trials: None,
  )
  assert np.flatnonzero(left).tolist() == [1]


def test_of_many_moves_the_cheapest_are_made_together():
  tried = []

  def loss(keep):
    tried.append(int(keep.sum()))
    return 1 - keep[-40:].mean()  # what comes before them costs nothing

  def without(keep, units):
    trial = keep.copy()
    trial[units] = False
    return trial

  keep, queue = elimination._drop_together(
    keep=np.ones(140, bool),
    queue=[(i / 140, i, 0) for i in range(140)],
    moves=[np.array([i]) for i in range(140)],
    loss=loss,
    without=without,
    target=0.1,
    show=lambda keep, trials: None,
  )
  assert not keep[:70].any()
  assert loss(keep) <= 0.1
  assert len(queue) == keep.sum()
  assert len(tried) < 20
