import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.ranking import attribution, ranks


@pytest.fixture(scope='module')
def posed(known):
  model = gated_model.make(known.config, known.params, known.means)
  return model, make_pairs(known.train)


def loss_of(units, data):
  """Mean loss of a mask, gates as they are."""

  def loss(keep):
    gates = units.split(keep.astype(np.float32))
    answers = gated_model.all_outputs(units.model, gates, data)
    return float(jnp.mean(data.losses(answers)))

  return loss


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_eap_is_the_cost_of_slightly_closing_one_gate(posed, gates):
  model, data = posed
  units = units_lib.make(model, gates)
  scores = attribution.eap(units, data)
  loss = loss_of(units, data)
  count = units.count
  best = int(np.argmax(scores))
  for unit in (best, 3, count - 1):
    trial = np.ones(count)
    trial[unit] = 0.98
    cost = (loss(trial) - loss(np.ones(count))) / 0.02
    assert scores[unit] == pytest.approx(cost, rel=0.1, abs=1e-4)


def test_attribution_is_the_absolute_value_of_the_node_slopes(posed):
  model, data = posed
  units = units_lib.make(model, 'nodes')
  scores = attribution.attribution(units, data)
  effects = attribution.eap(units, data)
  np.testing.assert_allclose(scores, np.abs(effects))
  with pytest.raises(ValueError, match="must be 'nodes'"):
    attribution.attribution(units_lib.make(model, 'edges'), data)


def test_tied_queries_and_keys_have_the_sum_of_both_slopes(posed):
  model, data = posed
  tied = units_lib.make(model, 'nodes', tie_qk=True)
  loose = units_lib.make(model, 'nodes')
  one = tied.split(attribution.eap(tied, data))
  two = loose.split(attribution.eap(loose, data))
  np.testing.assert_allclose(
    one['0.attn.qk'], two['0.attn.q'] + two['0.attn.k'], atol=1e-7
  )


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_integrated_slopes_add_up_to_the_loss_of_nothing(posed, gates):
  model, data = posed
  units = units_lib.make(model, gates)
  scores = attribution.eap_ig(units, data, steps=40)
  loss, count = loss_of(units, data), units.count
  cost = loss(np.zeros(count)) - loss(np.ones(count))
  assert scores.sum() == pytest.approx(cost, rel=0.02)
  with pytest.raises(ValueError, match='steps must be at least 1, got 0'):
    attribution.eap_ig(units, data, steps=0)


@pytest.mark.parametrize('method', ['eap', 'eap_ig'])
@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_the_known_circuit_ranks_first(known, posed, gates, method):
  model, data = posed
  units = units_lib.make(model, gates)
  scores = getattr(attribution, method)(units, data)
  keys = set(known.nodes)
  if gates == 'edges':
    keys = {'0.attn.act_in->0.attn.v', '0.attn.v->0.attn.resid_delta'}
    keys.add('final_resid')
  keep = ranks.top(attribution.order(scores), len(keys))
  found = {k for k, mask in units.split(keep).items() if mask.any()}
  assert found == keys


@pytest.mark.slow
def test_the_last_few_sequences_count_as_much_as_the_others(posed):
  model, data = posed
  units = units_lib.make(model, 'edges')
  whole = attribution.eap(units, data.take(np.arange(40)))
  twice = attribution.eap(units, data.take(np.r_[0:40, 0:40]))
  np.testing.assert_allclose(whole, twice, atol=1e-6)


def test_order_is_strict_and_random_is_a_permutation(known):
  scores = np.array([1.0, 3.0, 1.0, 3.0])
  assert attribution.order(scores).tolist() == [1, 3, 0, 2]
  units = units_lib.Units(known.model, {'a': 5, 'b': 7})
  drawn = attribution.random(units, 0)
  assert sorted(drawn) == list(range(1, 13))
  np.testing.assert_array_equal(drawn, attribution.random(units, 0))
  assert not np.array_equal(drawn, attribution.random(units, 1))


def test_greedy_drops_from_last_to_first_by_tolerance():
  # Units 1 and 2 stand in for each other: the later one goes.
  def loss(keep):
    return 10 * (not keep[0]) + (not (keep[1] or keep[2])) + 0.1 * (not keep[3])

  groups = list(np.eye(5, dtype=bool))
  scores = attribution.greedy(groups, loss, [1e-6, 0.5, 2.0])
  assert scores.tolist() == [np.inf, 2.0, 1e-6, 0.5, 1e-6]


def test_greedy_keeps_what_is_in_no_group_and_names_wrong_tolerances():
  groups = [np.array([True, True, False])]
  seen = []
  attribution.greedy(groups, lambda keep: seen.append(keep) or 0.0, [1.0])
  assert all(keep[2] for keep in seen)
  for groups_given, tolerances in ((groups, [1.0, 1.0]), ([], [1.0])):
    with pytest.raises(ValueError, match='increasing tolerances'):
      attribution.greedy(groups_given, lambda keep: 0.0, tolerances)
