"""The whole search, where the right answer is known."""

import dataclasses

import jax
import numpy as np
import pytest

from sparse_interp.circuits import find
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import gate_steps, pruning, ranks
from sparse_interp.circuits.selecting import (
  answers,
  from_ranking,
  judging,
  parted,
)

_CONFIG = PruneConfig(
  steps=60,
  batch_pairs=8,
  k_coef=1e-3,
  learning_rate=3e-2,
  selection_pairs=16,
  holdout_pairs=16,
  ablation='mean',
  calibrate='after',
  init_attribution=0.0,
)


@pytest.fixture(scope='module')
def found(known):
  shown = []
  circuit = find.find_circuit(
    known.config,
    known.params,
    known.means,
    known.train,
    known.test,
    _CONFIG,
    seed=0,
    progress=lambda fields: shown.append(dict(fields)),
    provenance={'tokenizer_hash': 'abc'},
    pieces=lambda ids: [f'<{i}>' for i in ids],
    description='which evidence was seen',
    mean_tokens=7,
  )
  return circuit, shown


def _loss(known, keep, units):
  pairs = task_loss.make_pairs(known.train).take(np.arange(16))
  answer = answers.answer_by_gates(units)
  return float(pairs.losses(answer(keep, pairs)).mean())


def _table(circuit):
  names = list(circuit.sites)
  return {
    (names[a], int(i), names[b], int(j), float(w))
    for a, i, b, j, w in zip(*circuit.edges, strict=True)
  }


_TRUE_TABLE = {
  ('0.attn.act_in', 0, '0.attn.v', 5, 6.0),
  ('0.attn.v', 5, '0.attn.resid_delta', 3, 6.0),
}


def test_pruning_finds_exactly_the_circuit_that_was_written(known, found):
  circuit, _ = found
  nodes = {s: k.tolist() for s, k in circuit.nodes.items() if k.size}
  assert nodes == known.nodes
  assert _table(circuit) == _TRUE_TABLE


def test_dropping_any_unit_misses_the_target(known, found):
  circuit, _ = found
  keep = known.units.mask_of(circuit.nodes)
  _assert_minimal(known, keep, known.units)


def _assert_minimal(known, keep, units):
  assert _loss(known, keep, units) <= _CONFIG.target_loss
  for unit in np.flatnonzero(keep):
    fewer = keep.copy()
    fewer[unit] = False
    assert _loss(known, fewer, units) > _CONFIG.target_loss


@pytest.fixture(scope='module')
def found_edges(known):
  return find.find_circuit(
    known.config,
    known.params,
    known.means,
    known.train,
    known.test,
    dataclasses.replace(_CONFIG, gates='edges'),
    seed=0,
  )


@pytest.mark.slow
def test_pruning_of_edges_finds_the_two_that_were_written(known, found_edges):
  circuit = found_edges
  assert sum(i.shape[1] for i in known.model.edges.values()) > 100
  assert _table(circuit) == _TRUE_TABLE
  assert circuit.gates == 'edges'
  nodes = {s: k.tolist() for s, k in circuit.nodes.items() if k.size}
  assert nodes == known.nodes
  for name, index in known.model.edges.items():
    assert circuit.scores[name].shape == (index.shape[1],)
  assert circuit.history['edges'][0] > 100
  assert circuit.metrics['test_loss'] <= 0.15
  assert circuit.metrics['necessity_loss'] >= 0.6
  assert circuit.metrics['random_loss'] >= 0.5


@pytest.mark.slow
def test_dropping_any_edge_misses_the_target(known, found_edges):
  units = units_lib.make(known.model, 'edges')
  found = units.mask_of({'final_resid': [3]})
  assert found_edges.nodes['final_resid'].tolist() == [3]
  keep = known.true_units(units)
  assert np.all(keep[found])
  _assert_minimal(known, keep, units)


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_without_elimination_the_lowest_ranked_unit_is_needed(known, gates):
  config = dataclasses.replace(
    _CONFIG, gates=gates, eliminate=False, min_necessity=None
  )
  units = from_ranking.units_of(known.model, config)
  data = parted.part(known.model, task_loss.make_pairs(known.train), config)
  # A ranking with what is needed far apart from each other.
  order = np.argsort(~known.true_units(units), kind='stable')
  order = np.insert(order[3:], [2, 9, 20], order[:3])
  found = from_ranking.select(units, order, 5, data, config)
  k = found.search[-1]['bisected_units']
  goal = found.search[-1]['goal']
  assert _loss(known, ranks.top(order, k), units) <= goal
  assert _loss(known, ranks.top(order, k - 1), units) > goal
  scores = np.concatenate(list(found.scores.values()))
  np.testing.assert_array_equal(np.argsort(-scores), order)


@pytest.mark.parametrize(
  ('losses', 'kept'),
  [
    # Holdout losses of the eliminated circuit, of the one that elimination
    # found from a nearer start, and of the bisected one, where it is judged:
    # only if none of the others holds.
    ((0.2, 0.12), 1),
    ((0.1, 0.12), 0),
    ((0.2, 0.2, 0.1), 2),
    ((0.3, 0.2, 0.4), 1),
  ],
)
def test_of_circuits_that_hold_on_unseen_pairs_the_smallest_is_taken(
  known, monkeypatch, losses, kept
):
  config = dataclasses.replace(_CONFIG, min_necessity=None, attempts=1)
  units = from_ranking.units_of(known.model, config)
  data = parted.part(known.model, task_loss.make_pairs(known.train), config)
  seen = []

  def judge(units, keep, data, config):
    seen.append(judging.Tried(keep, len(seen), 1, 0, *[losses[len(seen)]] * 2))
    return seen[-1]

  monkeypatch.setattr(from_ranking, 'judge', judge)
  # Any mask will do; they only must be told apart.
  circuits = [np.eye(units.count, dtype=bool)[i] for i in range(3)]
  monkeypatch.setattr(from_ranking, 'refinements', lambda *_: circuits[:2])
  monkeypatch.setattr(
    from_ranking.Ranked, 'smallest', lambda *_: (1, 0.0, circuits[2])
  )
  order = np.argsort(~known.true_units(units), kind='stable')
  found = from_ranking.select(units, order, 5, data, config)
  np.testing.assert_array_equal(found.keep, circuits[kept])
  assert len(seen) == len(losses)


def test_more_certainty_than_the_full_model_has_is_not_asked_for(
  known, monkeypatch
):
  pairs = task_loss.make_pairs(known.train).take(np.arange(16))
  found = np.tile(np.array([[2.0, -2.0]], np.float32), (16, 1))
  found[0] = 0.0
  monkeypatch.setattr(from_ranking.gated_model, 'all_outputs', lambda *_: found)
  mean = float(pairs.losses(found).mean())
  asked = dataclasses.replace(
    _CONFIG, calibrate='after', standard_errors=2.0, margin=0.0
  )
  check = lambda target: from_ranking.check_full_loss(  # noqa: E731
    known.model, pairs, dataclasses.replace(asked, target_loss=target)
  )
  loss, config = check(mean + 0.2)
  assert config.standard_errors == 2.0
  assert mean + 0.05 < loss <= mean + 0.2
  loss, config = check(mean + 0.01)
  assert config.standard_errors == 0.0
  np.testing.assert_allclose(loss, mean, rtol=1e-6)
  with pytest.raises(from_ranking.Unprunable):
    check(mean - 0.01)


@pytest.mark.slow
def test_a_target_on_kl_is_met_in_kl(known):
  config = dataclasses.replace(
    _CONFIG, target_on='kl', kl_weight=1.0, target_loss=0.05, margin=0.01
  )
  circuit = find.find_circuit(
    known.config,
    known.params,
    known.means,
    known.train,
    known.test,
    config,
    seed=0,
  )
  assert circuit.metrics['test_kl'] <= 0.05
  nodes = {s: k.tolist() for s, k in circuit.nodes.items() if k.size}
  assert nodes == known.nodes


def test_tied_queries_and_keys_have_one_gate(known):
  config = dataclasses.replace(_CONFIG, tie_qk=True)
  units = from_ranking.units_of(known.model, config)
  assert '0.attn.qk' in units.sizes
  assert not {'0.attn.q', '0.attn.k'} & units.sizes.keys()
  found = find.find_units(
    known.model, task_loss.make_pairs(known.train), config, seed=0
  )
  np.testing.assert_array_equal(found.keep, known.true_units(units))


def test_metrics_tell_the_circuit_from_chance(found):
  metrics = found[0].metrics
  assert metrics['test_loss'] <= 0.15
  assert metrics['full_loss'] <= 0.15
  assert metrics['necessity_loss'] >= 0.69
  assert metrics['random_loss'] >= 0.5
  losses = 'full test train raw necessity random raw_random'.split()
  for name in [*(f'{loss}_loss' for loss in losses), 'test_kl', 'raw_kl']:
    low, high = metrics[f'{name}_interval']
    assert low - 1e-6 <= metrics[name] <= high + 1e-6
  assert set(metrics['full_conditions']) == {'early', 'late'}


def test_examples_show_test_prompts_and_the_circuits_activations(known, found):
  circuit, _ = found
  assert len(circuit.examples) == 12
  assert {e['condition'] for e in circuit.examples} == {'early', 'late'}
  first = circuit.examples[1]
  assert (first['side'], first['answer'], first['other_answer']) == (
    'b',
    '<4>',
    '<3>',
  )
  for kind in ('probability', 'raw_probability', 'full_probability'):
    assert all(e[kind] > 0.5 for e in circuit.examples)
  assert 'in the circuit' in circuit.formula['activation']
  tokens = circuit.example_tokens
  assert tokens.shape[0] == 12
  assert first['pieces'] == [
    f'<{t}>' for t in tokens[1][: len(first['pieces'])]
  ]
  seen = (tokens == 1) * 1.0 - (tokens == 2)
  np.testing.assert_allclose(
    circuit.activations['0.attn.v'][..., 0], 6 * seen, atol=1e-5
  )


def test_progress_tells_step_loss_nodes_and_time_left(found):
  steps = [f for f in found[1] if f['phase'] == 'optimise']
  assert steps[-1]['step'] == steps[-1]['steps'] == 60
  assert steps[-1]['seconds_left'] == 0
  assert found[0].history['nodes'][0] > steps[-1]['active'] > 0
  assert {'eliminate', 'measure'} <= {f['phase'] for f in found[1]}


def test_all_tasks_of_a_shape_share_one_compilation(known, found):
  compiled = gate_steps.run_chunk._cache_size()
  other = dataclasses.replace(known.train, tokens=known.train.tokens[::-1])
  closed = dataclasses.replace(known.model, closed=_CONFIG.closed)
  pruning.optimize(
    dataclasses.replace(known.units, model=closed),
    task_loss.make_pairs(other).take(np.arange(32)),
    dataclasses.replace(_CONFIG, steps=25, k_coef=3e-3, learning_rate=1e-2),
    seed=3,
  )
  assert gate_steps.run_chunk._cache_size() == compiled


def test_same_seed_gives_the_same_gates_and_history_counts_steps(known):
  run = lambda seed: pruning.optimize(  # noqa: E731
    known.units,
    task_loss.make_pairs(known.train).take(np.arange(32)),
    dataclasses.replace(_CONFIG, steps=25),
    seed,
  )
  first, again, other = run(0), run(0), run(1)
  jax.tree.map(np.testing.assert_array_equal, first.tau, again.tau)
  assert not np.array_equal(first.tau['final_resid'], other.tau['final_resid'])
  assert first.history['step'] == list(range(1, 26))
  assert np.isfinite(first.history['task_loss']).all()
  assert all(np.abs(t).max() <= 1 for t in first.tau.values())


def test_a_target_below_the_full_models_loss_is_refused(known):
  config = dataclasses.replace(_CONFIG, target_loss=1e-9, margin=0.0)
  with pytest.raises(ValueError, match='target_loss must be at least the full'):
    find.find_units(
      known.model, task_loss.make_pairs(known.train), config, seed=0
    )


def test_a_target_that_the_empty_circuit_meets_is_refused(known):
  config = dataclasses.replace(_CONFIG, target_loss=0.8)
  with pytest.raises(ValueError, match=r'all is removed, 0\.69.*, got 0\.8'):
    find.find_units(
      known.model, task_loss.make_pairs(known.train), config, seed=0
    )


def test_too_few_pairs_are_refused(known):
  config = dataclasses.replace(_CONFIG, holdout_pairs=60)
  with pytest.raises(ValueError, match='number of training pairs, 64, got 84'):
    find.find_units(
      known.model, task_loss.make_pairs(known.train), config, seed=0
    )


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('steps', 0),
    ('temperature', 0.0),
    ('margin', 0.2),
    ('calibrate', 'never'),
    ('inv_beta2', 0.0),
    ('gates', 'heads'),
    ('ablation', 'noise'),
    ('target_on', 'loss'),
    ('kl_weight', 1.5),
  ],
)
def test_hyperparameters_out_of_range_are_named(field, value):
  with pytest.raises(ValueError, match=rf'^{field} must be .*choose'):
    PruneConfig(**{field: value})


def test_tied_edges_are_refused():
  with pytest.raises(ValueError, match=r'^tie_qk must be False with'):
    PruneConfig(tie_qk=True, gates='edges')


@pytest.mark.slow
@pytest.mark.parametrize('in_turn', [False, True])
def test_jobs_together_end_as_they_do_one_by_one(known, monkeypatch, in_turn):
  monkeypatch.setattr(pruning, '_LARGE', 0 if in_turn else 2**40)
  ways = []
  run_chunks = pruning.gate_steps.run_chunks
  monkeypatch.setattr(
    pruning.gate_steps,
    'run_chunks',
    lambda *x, **way: ways.append(way['in_turn']) or run_chunks(*x, **way),
  )
  pairs = task_loss.make_pairs(known.train)
  fast = dataclasses.replace(_CONFIG, steps=25, holdout_pairs=0)
  slow = dataclasses.replace(
    fast, k_coef=4e-3, learning_rate=1e-2, calibrate='during', beta1=0.5
  )
  jobs = [
    (pairs.take(np.arange(32)), fast, 0),
    (pairs.take(np.arange(32)), fast, 1),
    (pairs.take(np.arange(32, 64)), slow, 1),
  ]
  together = pruning.optimize_together(known.units, jobs)
  assert set(ways) == {in_turn}
  for (data, config, seed), shared in zip(jobs, together, strict=True):
    alone = pruning.optimize(known.units, data, config, seed)
    for found, expected in zip(shared, alone, strict=True):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        found,
        expected,
      )
  first, second, third = (job.tau['final_resid'] for job in together)
  assert np.abs(first - second).max() > 1e-2
  assert np.abs(second - third).max() > 1e-2
