"""Units by key and in one vector, tied and untied."""

import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib


def test_random_circuit_has_as_many_units_under_each_key(known):
  units = units_lib.Units(known.model, {'a': 10, 'b': 6})
  keep = units.mask_of({'a': [0, 3, 4]})
  first = units.random_like(keep, 0)
  assert [int(m.sum()) for m in units.split(first).values()] == [3, 0]
  again, other = (units.random_like(keep, seed) for seed in (0, 1))
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)


def test_mask_and_split_are_inverse_in_the_order_of_the_keys(known):
  units = units_lib.Units(known.model, {'a': 3, 'b': 0, 'c': 2})
  keep = units.mask_of({'c': [1], 'a': [0, 2]})
  assert keep.tolist() == [True, False, True, False, True]
  by_key = units.split(keep)
  assert {k: m.tolist() for k, m in by_key.items()} == {
    'a': [True, False, True],
    'b': [],
    'c': [False, True],
  }
  np.testing.assert_array_equal(units.flatten(by_key), keep)


def test_a_tied_unit_lives_by_its_query_or_its_key(known):
  tied = units_lib.make(known.model, 'nodes', tie_qk=True)
  assert tied.key_of('0.attn.q') == tied.key_of('0.attn.k') == '0.attn.qk'
  assert tied.key_of('0.attn.v') == '0.attn.v'
  loose = units_lib.make(known.model, 'nodes')
  rng = np.random.default_rng(0)
  keep = rng.random(tied.count) < 0.7
  masks = tied.masks(keep)
  np.testing.assert_array_equal(masks['0.attn.q'], masks['0.attn.k'])
  live = loose.split(loose.live(loose.flatten(masks)))
  found = tied.split(tied.live(keep))
  np.testing.assert_array_equal(
    found['0.attn.qk'], live['0.attn.q'] | live['0.attn.k']
  )


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_a_circuit_and_the_rest_are_the_whole_model(known, gates):
  units = units_lib.make(known.model, gates)
  assert units.on_edges == (gates == 'edges')
  keep = np.random.default_rng(0).random(units.count) < 0.5
  on, off = units.unfold(keep), units.gates_of_rest(keep)
  assert off.keys() <= on.keys()
  for name, gate in off.items():
    if name in units.sizes:
      np.testing.assert_array_equal(gate, 1 - np.asarray(on[name]))


def test_sets_of_units_of_a_model_share_their_compilation(known):
  for _ in range(2):
    units = units_lib.make(known.model, 'edges')
    units.gates(np.ones(units.count, bool))
    compiled = units_lib._unfold._cache_size()
  units = units_lib.make(known.model, 'edges')
  units.gates(np.zeros(units.count, bool))
  assert units_lib._unfold._cache_size() == compiled
