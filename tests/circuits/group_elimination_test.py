import numpy as np
import pytest

from sparse_interp.circuits import gated_model, selection
from sparse_interp.circuits.group_elimination import (
  eliminate_groups,
  groups_of,
)


@pytest.fixture(scope='module')
def model(known):
  return gated_model.make(known.config, known.params, known.means)


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_groups_cover_every_unit_and_stay_under_one_key(model, gates):
  sizes = gated_model.unit_sizes(model, gates)
  groups = list(groups_of(model, sizes))
  assert np.any(groups, axis=0).all()
  for group in groups:
    assert group.any()
    masks = selection.split(group, sizes)
    assert sum(mask.any() for mask in masks.values()) == 1


def test_heads_are_groups_of_their_own(model):
  sizes = gated_model.unit_sizes(model, 'edges')
  key = '0.attn.act_in->0.attn.v'
  columns = np.asarray(model.edges[key])[1]
  for head in (0, 1):
    mask = {key: np.flatnonzero(columns // model.config.d_head == head)}
    wanted = selection.mask_of(mask, sizes)
    assert any(np.array_equal(wanted, g) for g in groups_of(model, sizes))


def test_interlocked_units_go_together_and_needed_ones_stay(model):
  sizes = gated_model.unit_sizes(model, 'edges')
  first, needed = next(iter(sizes)), next(reversed(sizes))

  def loss(keep):
    masks = selection.split(keep, sizes)
    some = masks[first].any() and not masks[first].all()
    return 1.0 * some + (not masks[needed].all())

  keep = eliminate_groups(
    model, np.ones(sum(sizes.values()), bool), sizes, loss, 0.5
  )
  masks = selection.split(keep, sizes)
  assert {key for key, mask in masks.items() if mask.any()} == {needed}
