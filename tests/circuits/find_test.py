"""The whole search, where the right answer is known."""

import dataclasses

import jax
import numpy as np
import pytest

from sparse_interp.circuits import find, pruning, selection, task_loss

_CONFIG = pruning.PruneConfig(
  steps=60,
  batch_pairs=8,
  k_coef=1e-3,
  learning_rate=3e-2,
  selection_pairs=16,
  holdout_pairs=16,
  calibrate='after',
  min_necessity=0.6,
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


def _loss(known, nodes):
  pairs = task_loss.make_pairs(known.train).take(np.arange(16))
  gates = selection.gates_of(nodes, known.sites)
  differences = task_loss.differences_in_batches(
    known.config, known.params, known.means, gates, pairs
  )
  return float(task_loss.pair_losses(differences).mean())


def test_pruning_finds_exactly_the_circuit_that_was_written(known, found):
  circuit, _ = found
  nodes = {s: k.tolist() for s, k in circuit.nodes.items() if k.size}
  assert nodes == known.nodes
  edges = circuit.edges
  names = list(circuit.sites)
  listed = {
    (names[a], int(i), names[b], int(j), float(w))
    for a, i, b, j, w in zip(*edges, strict=True)
  }
  assert listed == {
    ('0.attn.act_in', 0, '0.attn.v', 5, 6.0),
    ('0.attn.v', 5, '0.attn.resid_delta', 3, 6.0),
  }


def test_dropping_any_node_misses_the_target(known, found):
  circuit, _ = found
  assert _loss(known, circuit.nodes) <= _CONFIG.target_loss
  for site, kept in circuit.nodes.items():
    for node in kept:
      fewer = {**circuit.nodes, site: kept[kept != node]}
      assert _loss(known, fewer) > _CONFIG.target_loss


def test_metrics_tell_the_circuit_from_chance(found):
  metrics = found[0].metrics
  assert metrics['test_loss'] <= 0.15
  assert metrics['full_loss'] <= 0.15
  assert metrics['necessity_loss'] >= 0.69
  assert metrics['random_loss'] >= 0.5
  for name in ('full', 'test', 'train', 'raw', 'necessity', 'random'):
    low, high = metrics[f'{name}_loss_interval']
    assert low - 1e-6 <= metrics[f'{name}_loss'] <= high + 1e-6
  assert set(metrics['full_conditions']) == {'early', 'late'}


def test_examples_show_test_prompts_and_the_full_models_activations(
  known, found
):
  circuit, _ = found
  assert len(circuit.examples) == 12
  assert {e['condition'] for e in circuit.examples} == {'early', 'late'}
  first = circuit.examples[1]
  assert (first['side'], first['answer'], first['other_answer']) == (
    'b',
    '<4>',
    '<3>',
  )
  assert all(e['probability'] > 0.5 for e in circuit.examples)
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
  assert found[0].history['nodes'][0] > steps[-1]['nodes'] > 0
  assert {'eliminate', 'measure'} <= {f['phase'] for f in found[1]}


def test_all_tasks_of_a_shape_share_one_compilation(known, found):
  compiled = pruning._run_chunk._cache_size()
  other = dataclasses.replace(known.train, tokens=known.train.tokens[::-1])
  pruning.optimize(
    known.config,
    known.params,
    known.means,
    task_loss.make_pairs(other).take(np.arange(32)),
    known.sites,
    dataclasses.replace(_CONFIG, steps=25, k_coef=3e-3, learning_rate=1e-2),
    seed=3,
  )
  assert pruning._run_chunk._cache_size() == compiled


def test_same_seed_gives_the_same_gates_and_history_counts_steps(known):
  run = lambda seed: pruning.optimize(  # noqa: E731
    known.config,
    known.params,
    known.means,
    task_loss.make_pairs(known.train).take(np.arange(32)),
    known.sites,
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
    find.prune(
      known.config,
      known.params,
      known.means,
      task_loss.make_pairs(known.train),
      config,
      seed=0,
    )


def test_too_few_pairs_are_refused(known):
  config = dataclasses.replace(_CONFIG, holdout_pairs=60)
  with pytest.raises(ValueError, match='number of training pairs, 64, got 84'):
    find.prune(
      known.config,
      known.params,
      known.means,
      task_loss.make_pairs(known.train),
      config,
      seed=0,
    )


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('steps', 0),
    ('temperature', 0.0),
    ('margin', 0.2),
    ('calibrate', 'never'),
    ('inv_beta2', 0.0),
  ],
)
def test_hyperparameters_out_of_range_are_named(field, value):
  with pytest.raises(ValueError, match=rf'prune\.{field} must be .*choose'):
    pruning.PruneConfig(**{field: value})
