"""One call from a model in memory to a circuit, a verdict, a small model."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.auditing.audit import audit
from sparse_interp.circuits.circuit import load, save
from sparse_interp.circuits.extracted import small_model
from sparse_interp.circuits.extracted.extract_small import extract
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.prune_task import prune
from sparse_interp.tasks.own import read_task
from tests import known_text
from tests.known_text import CONFIG, PAIRS, TASK

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model():
  return known_text.make_model()


@pytest.fixture(scope='module')
def circuit(model):
  return prune(model, TASK, CONFIG, seed=0, **PAIRS)


def test_the_known_circuit_is_found(circuit):
  names = set(circuit.node_names())
  assert {'0.attn.act_in:0', '0.attn.v:5', '0.attn.resid_delta:3'} <= names
  assert len(names) <= 5
  assert len(names) == circuit.node_count == len(circuit.node_names())
  assert circuit.metrics['test_loss'] <= CONFIG.target_loss


def test_edges_have_names_and_the_weights_of_the_model(model, circuit):
  edges = circuit.edge_names()
  assert len(edges) == circuit.edge_count > 0
  assert {end for edge in edges for end in edge[:2]} <= set(
    circuit.node_names()
  )
  kernel = model.params['h_0']['attn']['c_proj']['kernel']
  weights = {edge[:2]: edge[2] for edge in edges}
  found = weights['0.attn.v:5', '0.attn.resid_delta:3']
  assert found == pytest.approx(float(kernel[5, 3]))


def test_a_circuit_says_where_it_is_from(model, circuit):
  found = circuit.provenance
  assert found['params_hash'] == model.hash
  assert found['tokenizer_hash'] == model.tokenizer.hash
  assert found['recipe'] == dataclasses.asdict(CONFIG)
  assert found['seed'] == 0
  assert found['task_hash']
  assert found['versions']


@pytest.mark.slow
def test_a_circuit_knows_the_pairs_it_was_found_on(model, circuit):
  other = prune(model, TASK, CONFIG, seed=1, **PAIRS)
  again = prune(model, TASK, CONFIG, seed=0, **PAIRS)
  first = circuit.provenance['pairs_hash']
  assert again.provenance['pairs_hash'] == first
  assert other.provenance['pairs_hash'] != first
  assert again.node_names() == circuit.node_names()
  assert again.metrics == circuit.metrics


def test_a_circuit_is_one_line_and_a_drawing(circuit):
  assert repr(circuit).count('\n') == 0
  assert f'{circuit.edge_count} edges' in repr(circuit)
  shown = circuit._repr_html_()
  assert shown.count('data-node=') == circuit.node_count
  assert ':root' not in shown


def test_a_circuit_is_the_same_after_it_was_saved(circuit, tmp_path):
  save(circuit, tmp_path)
  read = load(tmp_path)
  assert repr(read) == repr(circuit)
  assert read.edge_names() == circuit.edge_names()
  assert read._repr_html_() == circuit._repr_html_()


def test_an_audit_measures_what_the_search_measured(model, circuit):
  verdict = audit(model, circuit, TASK, seed=0, test_pairs=32)
  for name, metric in (
    ('loss_raw', 'raw_loss'),
    ('loss_calibrated', 'test_loss'),
    ('kl', 'test_kl'),
    ('necessity_raw', 'necessity_loss'),
    ('random_loss', 'random_loss'),
    ('loss_full', 'full_loss'),
  ):
    number = verdict.numbers[name]
    assert number.value == circuit.metrics[metric], name
    interval = circuit.metrics[f'{metric}_interval']
    assert [number.low, number.high] == interval
    assert number.formula


@pytest.mark.slow
@pytest.mark.parametrize('gates', ['nodes', 'edges'])
@pytest.mark.parametrize('tied', [False, True])
def test_every_kind_of_circuit_can_be_audited(model, gates, tied):
  if tied and gates == 'edges':
    return
  config = dataclasses.replace(
    CONFIG, gates=gates, tie_qk=tied, ablation='zero', final_resid=not tied
  )
  found = prune(model, TASK, config, seed=0, **PAIRS)
  verdict = audit(model, found, TASK, seed=0, test_pairs=32)
  value = verdict.numbers['loss_calibrated'].value
  assert value == found.metrics['test_loss']
  assert verdict.numbers['random_loss'].value == found.metrics['random_loss']


def test_half_a_circuit_is_not_found(model, circuit):
  half = dataclasses.replace(
    circuit, nodes={**circuit.nodes, '0.attn.v': np.zeros(0, int)}
  )
  good = audit(model, circuit, TASK, test_pairs=32)
  bad = audit(model, half, TASK, test_pairs=32)
  assert good.found
  # It was made for the mean, and measured under the others, too.
  assert 'mean' in good.holds_under
  assert not bad.found
  assert bad.holds_under == ()
  assert not bad.numbers['loss_calibrated'].passed
  # Half of the subsets bring back what it lacks.
  assert not bad.numbers['loss_subsets'].passed
  json.dumps(bad.to_json())


@pytest.mark.slow
def test_the_small_model_is_the_circuit(model, circuit):
  small = extract(model, circuit)
  logits = small_model.apply(small, tokens=jnp.zeros((1, 4), jnp.int32))
  assert logits.shape == (1, 4, 257)


def test_a_circuit_of_another_model_is_refused(model, circuit):
  other = dataclasses.replace(model, params={**model.params, 'x': jnp.ones(1)})
  for use in (
    lambda: audit(other, circuit, TASK),
    lambda: extract(other, circuit),
  ):
    with pytest.raises(ValueError, match='params_hash'):
      use()


def test_a_task_of_ones_own_gives_what_it_has(model, tmp_path):
  task = read_task(known_text.write_pairs(tmp_path / 'own.jsonl', 100, 20))
  config = PruneConfig(steps=40, k_coef=1e-3)
  found = prune(model, task, config, seed=0)
  assert found.task == 'own'
  assert found.metrics['test_pairs'] == 20
  used = found.prune_config
  assert used['selection_pairs'] + used['holdout_pairs'] == 50
  assert found.provenance['task_hash'] == task.hash
  assert (
    audit(model, found, task).numbers['loss_calibrated'].value
    == (found.metrics['test_loss'])
  )


def test_too_few_pairs_of_ones_own_are_counted(model, tmp_path):
  task = read_task(known_text.write_pairs(tmp_path / 'own.jsonl', 100, 20))
  with pytest.raises(
    ValueError, match=r'own must give at least 32 train pairs .* got 0: 100'
  ):
    prune(model, task, CONFIG, length=4)


def test_what_a_model_lacks_is_named(model):
  with pytest.raises(ValueError, match='model must have a tokenizer'):
    prune(known_text.make_model(tokenizer=None), TASK, CONFIG, **PAIRS)
  mute = known_text.make_model(windows=None)
  with pytest.raises(ValueError, match='windows must hold text'):
    prune(mute, TASK, CONFIG, **PAIRS)
  zero = dataclasses.replace(CONFIG, ablation='zero')
  assert prune(mute, TASK, zero, **PAIRS).node_count


def test_a_model_that_does_not_solve_the_task_is_refused(model):
  params = {**model.params, 'lm_head': {'kernel': jnp.zeros((8, 257))}}
  other = dataclasses.replace(model, params=params)
  with pytest.raises(ValueError, match='target_loss'):
    prune(other, TASK, CONFIG, **PAIRS)
