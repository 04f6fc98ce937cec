"""Masks of whole blocks: those of largest norm, exactly as many as asked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.pretrain import tiny
from sparse_interp.sparsity import projection, rules, schedules
from sparse_interp.training import plan

SIDE = 16


def norms(matrix):
  r, c = (n // SIDE for n in matrix.shape)
  parts = matrix.reshape(r, SIDE, c, SIDE).swapaxes(1, 2)
  return np.linalg.norm(parts, axis=(2, 3))


def random(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def project(weights, move, count, axis=None, alive=0):
  target = rules.Target(count, axis, alive, SIDE)
  tx = projection.keep_largest_weights({'w': target})
  params = {'w': jnp.asarray(weights)}
  updates, _ = tx.update({'w': jnp.asarray(move)}, tx.init(params), params)
  return np.asarray(optax.apply_updates(params, updates)['w'])


@pytest.mark.parametrize('blocks', [1, 5, 12])
def test_the_blocks_of_largest_norm_survive_the_update(blocks):
  weights, move = random((48, 64)), random((48, 64), 1)
  # One huge weight: its block must win against many that are larger in sum.
  weights[20, 20] = 90.0
  result = project(weights, move, blocks * SIDE**2)
  order = np.argsort(-norms(weights + move).reshape(-1))
  kept = np.zeros(12, bool)
  kept[order[:blocks]] = True
  entries = np.repeat(np.repeat(kept.reshape(3, 4), SIDE, 0), SIDE, 1)
  # The update lands on p + u only up to rounding.
  wanted = np.where(entries, weights + move, 0)
  np.testing.assert_allclose(result, wanted, rtol=1e-6)
  assert np.count_nonzero(result) == blocks * SIDE**2
  assert kept[5]


def test_equal_blocks_are_kept_by_index_and_a_dropped_one_comes_back():
  weights = np.ones((32, 32), np.float32)
  result = project(weights, 0 * weights, SIDE**2)
  np.testing.assert_array_equal(norms(result) > 0, [[True, False], [False] * 2])
  move = np.zeros_like(weights)
  move[16:, 16:] = 7.0
  result = project(result, move, SIDE**2)
  np.testing.assert_array_equal(norms(result) > 0, [[False] * 2, [False, True]])


@pytest.mark.slow
@pytest.mark.parametrize('axis', [0, 1])
def test_every_unit_keeps_a_block_inside_the_same_count(axis):
  weights = random((64, 64))
  weights[:32, :32] *= 1e3
  free = project(weights, 0 * weights, 5 * SIDE**2)
  assert np.count_nonzero(free, axis=axis).min() == 0
  result = project(weights, 0 * weights, 5 * SIDE**2, axis, 4)
  assert np.count_nonzero(result, axis=axis).min() >= SIDE
  assert np.count_nonzero(result) == 5 * SIDE**2


def test_sharded_weights_give_the_same_mask_and_are_not_gathered():
  mesh = jax.make_mesh((4,), ('fsdp',), axis_types=(AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec(None, 'fsdp'))
  target = rules.Target(5 * SIDE**2, None, 0, SIDE)
  weights = random((32, 128))
  keep = jax.jit(lambda w: projection.keep_mask(w, target.counts, target))
  alone = np.asarray(keep(weights))
  sharded = jax.device_put(weights, sharding)
  np.testing.assert_array_equal(keep(sharded), alone)
  text = keep.lower(sharded).compile().as_text()
  # What is gathered, if anything, is norms: no array as large as the weights.
  gathered = [line for line in text.splitlines() if ' all-gather(' in line]
  assert not [line for line in gathered if '[32,128]' in line]


def block_config(block, density=1 / 4):
  config = tiny.get_config()
  config.sparsity.block = block
  config.sparsity.density = density
  config.sparsity.minimum_alive = 0
  return config


def test_the_switch_thins_matrices_of_layers_by_blocks_and_nothing_else():
  free = plan.make_plan(tiny.get_config()).targets
  targets = plan.make_plan(block_config(SIDE)).targets
  assert targets.keys() == free.keys()
  for name, target in targets.items():
    in_layer = name.startswith('h_') and name.endswith('kernel')
    assert target.block == (SIDE if in_layer else None)
    assert free[name].block is None
    if in_layer:
      assert np.all(target.counts % SIDE**2 == 0)
      assert np.all(np.diff(target.counts) <= 0)
      assert target.counts[0] > target.counts[-1] > 0
    # As dense as without blocks, down to one block.
    gap = free[name].counts - target.counts
    assert np.all((gap >= 0) & (gap < (SIDE**2 if in_layer else 1)))


def test_a_configuration_without_the_field_is_unstructured():
  config = tiny.get_config()
  with config.unlocked():
    del config.sparsity.block
  targets = plan.make_plan(config).targets
  assert {target.block for target in targets.values()} == {None}


@pytest.mark.parametrize(
  ('block', 'density', 'alive', 'field'),
  [
    (8, 1 / 4, 0, 'sparsity.block'),
    (256, 1 / 4, 0, 'sparsity.block'),
    (24, 1 / 4, 0, 'sparsity.block must divide'),
    (SIDE, 1e-3, 0, 'sparsity.density'),
    (SIDE, 1 / 16, 4, 'sparsity.minimum_alive'),
  ],
)
def test_what_blocks_cannot_do_is_refused(block, density, alive, field):
  kernels = {'kernel': jax.ShapeDtypeStruct((64, 192), jnp.float32)}
  only = (('kernel', rules.Rule('hidden', alive_axis=0)),)
  schedule = schedules.DensitySchedule(100, density, 2.0)
  with pytest.raises(ValueError, match=field) as error:
    rules.make_targets(kernels, schedule, alive, 'dense', only, block)
  assert '\n' not in str(error.value)


def test_a_size_that_divides_is_proposed():
  kernels = {'kernel': jax.ShapeDtypeStruct((96, 192), jnp.float32)}
  only = (('kernel', rules.Rule('hidden', alive_axis=0)),)
  schedule = schedules.DensitySchedule(100, 1 / 4, 2.0)
  with pytest.raises(ValueError, match='choose 96'):
    rules.make_targets(kernels, schedule, 0, 'dense', only, 64)
