"""Fingerprints: alike on any devices, and changed by whatever changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sparse_interp.training import fingerprint, sharding

TREE = {
  'matrix': np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32),
  'count': np.int32(7),
  'nothing': np.zeros((0, 3), np.float32),
  'mask': np.array([True, False, True]),
  'half': np.arange(6, dtype=jnp.bfloat16).reshape(1, 2, 3),
}


def prints(tree):
  return fingerprint.look(jax.tree.map(jnp.asarray, tree))[0]


def test_dtypes_and_shapes_are_part_of_it():
  found = prints(TREE)
  assert found['matrix'][:2] == ['float32', [64, 32]]
  assert found['half'][:2] == ['bfloat16', [1, 2, 3]]
  assert found['nothing'][:2] == ['float32', [0, 3]]
  turned = prints({**TREE, 'matrix': TREE['matrix'].reshape(32, 64)})
  assert fingerprint.differing(found, turned) == ['matrix']


@pytest.mark.parametrize('ways', [1, 2, 4, 8])
def test_it_is_the_same_on_every_number_of_devices(ways):
  mesh = sharding.make_mesh(ways, jax.devices()[:ways])
  for spec in (PartitionSpec('fsdp'), PartitionSpec(None, 'fsdp')):
    placed = jax.device_put(TREE['matrix'], NamedSharding(mesh, spec))
    assert prints({'matrix': placed})['matrix'] == prints(TREE)['matrix']


def test_one_flipped_bit_changes_both_sums():
  sums = prints({'x': TREE['matrix']})['x'][2]
  for bit in range(0, TREE['matrix'].size * 32, 4099):
    bits = TREE['matrix'].view(np.uint32).copy()
    bits.flat[bit // 32] ^= np.uint32(1 << bit % 32)
    found = prints({'x': bits.view(np.float32)})['x'][2]
    assert found[:8] != sums[:8]
    assert found[8:] != sums[8:]


def test_entries_that_change_places_change_it():
  for other in (TREE['matrix'][::-1], TREE['matrix'][:, ::-1]):
    assert prints({'x': other}) != prints({'x': TREE['matrix']})
  zeros = np.zeros(100, np.float32)
  places = {prints({'x': np.eye(100, dtype='f4')[i]})['x'][2] for i in range(9)}
  assert len(places | {prints({'x': zeros})['x'][2]}) == 10


def test_zeros_of_either_sign_are_two_things():
  assert prints({'x': np.float32(0.0)}) != prints({'x': np.float32(-0.0)})


def test_tensors_that_are_not_finite_are_named():
  tree = {**TREE, 'half': np.float32(-np.inf), 'matrix': TREE['matrix'].copy()}
  tree['matrix'][3, 4] = np.nan
  _, broken = fingerprint.look(jax.tree.map(jnp.asarray, tree))
  assert sorted(broken) == ['half', 'matrix']


def test_differing_names_what_is_only_in_one():
  found = prints(TREE)
  less = {name: one for name, one in found.items() if name != 'count'}
  assert fingerprint.differing(found, less) == ['count']
  assert fingerprint.differing(less, found) == ['count']
  assert fingerprint.differing(found, dict(reversed(found.items()))) == []
