"""Exactly k of the largest |p + u|, whatever the tensor, step or sharding."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sparse_interp.sparsity import projection, rules, schedules


@functools.partial(jax.jit, static_argnames=('axis', 'alive'))
def project(weights, move, count, axis=None, alive=0):
  """Weights after one update by `move` and the projection to `count`."""
  # A table with every count, looked up at step `count`: one compilation does.
  table = np.arange(weights.size + 1, dtype=np.int32)
  tx = projection.keep_largest_weights({'w': rules.Target(table, axis, alive)})
  params, moves = {'w': weights}, {'w': move}
  updates, _ = tx.update(moves, tx.init(params), params, step=count)
  return optax.apply_updates(params, updates)['w']


def largest(values, count):
  """Flat indices of the `count` largest magnitudes, ties by lowest index."""
  flat = np.abs(values).reshape(-1)
  return set(np.lexsort((np.arange(flat.size), -flat))[:count].tolist())


# A few values only, so that ties are the rule.
coarse = strategies.integers(-3, 3).map(lambda n: n / 2)


@hypothesis.given(
  strategies.lists(strategies.tuples(coarse, coarse), min_size=24, max_size=24),
  strategies.integers(1, 24),
)
@hypothesis.settings(max_examples=40)
def test_the_largest_sums_survive_and_all_else_is_exactly_zero(pairs, count):
  weights, move = np.array(pairs, np.float32).T.reshape(2, 4, 6)
  result = np.asarray(project(weights, move, count))
  wanted = (weights + move).reshape(-1).copy()
  wanted[sorted(set(range(24)) - largest(wanted, count))] = 0
  np.testing.assert_array_equal(result.reshape(-1), wanted)


@pytest.mark.parametrize('count', [1, 57, 400, 1599, 1600])
def test_exactly_k_nonzeros_where_k_was_asked_for(count):
  rng = np.random.default_rng(count)
  weights = rng.normal(size=(40, 40)).astype(np.float32)
  move = rng.normal(size=(40, 40)).astype(np.float32)
  assert np.count_nonzero(project(weights, move, count)) == count


def test_a_dropped_weight_comes_back_when_it_grows():
  weights, move = np.array([[5, 1, 0], [0, 0, -7]], np.float32)
  result = project(weights, move, 2)
  np.testing.assert_array_equal(result, [5.0, 0.0, -7.0])


@pytest.mark.parametrize('axis', [0, 1])
def test_every_unit_keeps_its_minimum_inside_the_same_count(axis):
  rng = np.random.default_rng(axis)
  # One unit has huge weights: without the rule it would take everything.
  scale = np.ones((16, 24), np.float32)
  scale[:, :2] = scale[:2, :] = 1e4
  weights = (rng.normal(size=(16, 24)) * scale).astype(np.float32)
  count, alive = 110, 4
  free = project(weights, weights * 0, count)
  result = np.asarray(project(weights, weights * 0, count, axis, alive))
  assert np.count_nonzero(free, axis=axis).min() < alive
  assert np.count_nonzero(result, axis=axis).min() >= alive
  assert np.count_nonzero(result) == count
  # Protected entries are the largest of their unit, and what room is left
  # goes to the largest of all others.
  forced = set()
  index = np.arange(weights.size).reshape(weights.shape)
  for unit in range(weights.shape[1 - axis]):
    line = np.take(weights, unit, axis=1 - axis)
    where = np.take(index, unit, axis=1 - axis)
    forced |= {int(where[i]) for i in largest(line, alive)}
  others = np.where(np.isin(index, list(forced)), 0, weights)
  forced |= largest(others, count - len(forced))
  assert set(np.flatnonzero(result)) == forced


def test_counts_follow_the_table_and_its_last_entry_holds():
  table = np.array([8, 5, 3], np.int32)
  for step, count in [(0, 8), (1, 5), (2, 3), (7, 3)]:
    target = rules.Target(table)
    assert int(projection.count_at(target, jnp.int32(step))) == count
  assert projection.count_at(rules.Target(6), None) == 6


def test_a_table_without_a_step_is_an_error():
  target = rules.Target(np.array([1, 2], np.int32))
  with pytest.raises(ValueError, match='step must be given'):
    projection.count_at(target, None)


@pytest.mark.slow
def test_tensors_of_one_group_are_masked_like_each_alone():
  rng = np.random.default_rng(0)
  weights = {
    name: jnp.asarray(rng.normal(size=(8, 12)).astype(np.float32))
    for name in 'abcd'
  }
  table = np.array([50, 40], np.int32)
  protected = rules.Target(table, 1, 4)
  targets = {'a': protected, 'b': protected, 'c': rules.Target(table)}
  weights['c'] = weights['c'].at[:, 4:].set(0)
  masks, vacant = jax.jit(lambda w: projection.keep_masks(w, targets, 1))(
    weights
  )
  assert masks.keys() == targets.keys()
  # 40 are kept where 32 are nonzero.
  assert {name: int(n) for name, n in vacant.items()} == {
    'a': 0,
    'b': 0,
    'c': 8,
  }
  for name, target in targets.items():
    np.testing.assert_array_equal(
      masks[name], projection.keep_mask(weights[name], 40, target)
    )


def test_sharded_weights_give_the_same_mask_and_stay_sharded():
  mesh = jax.make_mesh((8,), ('fsdp',), axis_types=(AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec(None, 'fsdp'))
  rng = np.random.default_rng(0)
  weights = np.round(rng.normal(size=(32, 64)), 1).astype(np.float32)
  alone = np.asarray(project(weights, 0 * weights, 300, 1, 4))
  weights = jax.device_put(weights, sharding)
  shared = project(weights, 0 * weights, 300, 1, 4)
  assert shared.sharding.is_equivalent_to(sharding, 2)
  np.testing.assert_array_equal(shared, alone)


def shapes(**tensors):
  return {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in tensors.items()
  }


PARAMS = {
  'bigram_table': jax.ShapeDtypeStruct((96, 96), jnp.float32),
  'wte': shapes(embedding=(96, 64)),
  'wpe': shapes(embedding=(32, 64)),
  'lm_head': shapes(kernel=(64, 96)),
  'ln_f': shapes(scale=(64,)),
  'h_0': {
    'ln_1': shapes(scale=(64,)),
    'attn': {
      'c_attn': shapes(kernel=(64, 192), bias=(192,)),
      'c_proj': shapes(kernel=(64, 64), bias=(64,)),
      'sink_logit': jax.ShapeDtypeStruct((8,), jnp.float32),
    },
    'mlp': {
      'c_fc': shapes(kernel=(64, 256), bias=(256,)),
      'c_proj': shapes(kernel=(256, 64), bias=(64,)),
    },
  },
}
SCHEDULE = schedules.DensitySchedule(100, 1 / 8, 2.0)


def test_published_rules_name_densities_and_axes_of_every_tensor():
  targets = rules.make_targets(PARAMS, SCHEDULE, 4)
  final = {
    name: (int(t.counts[-1]), t.alive_axis if t.minimum_alive else None)
    for name, t in targets.items()
  }
  assert final == {
    'wte/embedding': (96 * 64 // 4, None),
    'wpe/embedding': (32 * 64 // 8, None),
    'lm_head/kernel': (96 * 64 // 4, None),
    # Kernels are (in, out): the inputs of a neuron lie along axis 0, its
    # outputs along axis 1.
    'h_0/attn/c_attn/kernel': (64 * 192 // 8, 0),
    'h_0/attn/c_attn/bias': (192 // 4, None),
    'h_0/attn/c_proj/kernel': (64 * 64 // 8, 1),
    'h_0/attn/c_proj/bias': (64 // 4, None),
    'h_0/mlp/c_fc/kernel': (64 * 256 // 8, 0),
    'h_0/mlp/c_fc/bias': (256 // 4, None),
    'h_0/mlp/c_proj/kernel': (64 * 256 // 8, 1),
    'h_0/mlp/c_proj/bias': (64 // 4, None),
  }


def test_dense_biases_have_no_target():
  targets = rules.make_targets(PARAMS, SCHEDULE, 4, biases='dense')
  assert not [name for name in targets if name.endswith('bias')]


def test_an_uncovered_tensor_is_an_error():
  with pytest.raises(ValueError, match='adapter/kernel'):
    rules.make_targets({'adapter': shapes(kernel=(4, 4))}, SCHEDULE)


@pytest.mark.parametrize(
  ('minimum_alive', 'density', 'field'),
  [
    (9, 1 / 8, 'sparsity.minimum_alive'),
    (-1, 1 / 8, 'sparsity.minimum_alive'),
    (0, 1e-4, 'sparsity.density'),
  ],
)
def test_what_cannot_be_kept_alive_is_an_error(minimum_alive, density, field):
  schedule = schedules.DensitySchedule(100, density, 2.0)
  with pytest.raises(ValueError, match=field):
    rules.make_targets(PARAMS, schedule, minimum_alive)


def test_the_largest_feasible_minimum_is_accepted():
  # 8 of 64 inputs for each of 256 neurons is exactly density 1/8.
  rules.make_targets(PARAMS, SCHEDULE, 8)


def test_unknown_targets_and_missing_params_are_errors():
  tx = projection.keep_largest_weights({'v': rules.Target(1)})
  with pytest.raises(ValueError, match="'v'"):
    tx.init({'w': jnp.ones(3)})
  tx = projection.keep_largest_weights({'w': rules.Target(1)})
  with pytest.raises(ValueError, match='params must be given'):
    tx.update({'w': jnp.ones(3)}, tx.init({'w': jnp.ones(3)}))
