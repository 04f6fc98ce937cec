import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from experiments import ground_truth as experiment
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.ground_truth import compiled_circuits, compiled_scores
from sparse_interp.ground_truth.compiled.paths import path_weights
from sparse_interp.ground_truth.compiled.programs import PROGRAMS, SHIPPED
from sparse_interp.ground_truth.compiled.storage import load
from sparse_interp.runs import ground_truth

CONFIG = experiment.get_config()


@functools.cache
def program(name):
  return load(SHIPPED / f'{name}.npz')


def configs(**fields):
  fields = {**CONFIG.compiled.to_dict(), **fields}
  return {
    gates: PruneConfig(**{**fields, 'gates': gates})
    for gates in ('edges', 'nodes')
  }


def score(name, methods, seed=0):
  return compiled_scores.score_program(program(name), configs(), methods, seed)


@pytest.mark.slow
@pytest.mark.parametrize('name', compiled_scores.PUBLISHED)
def test_greedy_removal_reproduces_the_published_sets(name):
  found = compiled_scores.published_greedy(program(name), seed=0)
  assert found['zero']['matches_published'] is True
  assert found['resample']['matches_published'] is True


@pytest.mark.slow
def test_edge_masks_find_the_circuit_of_frac_prevs_from_varied_lengths():
  result = score('frac_prevs', ['edge_masks'])
  assert result['edge_f1'] >= 0.95
  (row,) = (
    row
    for row in result['scores']
    if (row['method'], row['truth']) == ('edge_masks', 'components')
  )
  assert row['auroc'] >= 0.95
  assert row['test_loss'] <= row['target']


@pytest.mark.long
@pytest.mark.parametrize('seed', [0, 1])
def test_edge_masks_find_the_circuits_of_all_programs(seed):
  f1 = {}
  for name in PROGRAMS:
    f1[name] = score(name, ['edge_masks'], seed=seed)['edge_f1']
    jax.clear_caches()  # as the run does, see there
  assert f1['frac_prevs'] >= 0.95
  assert f1['reverse'] >= 0.95
  assert np.mean(list(f1.values())) >= 0.9, f1


@pytest.mark.slow
def test_every_row_says_which_is_which():
  result = score('hist', ['random', 'attribution'])
  fields = 'program truth method gates ablation target seed split'.split()
  for row in result['scores']:
    assert all(row[field] is not None for field in fields)
    assert 0 <= row['precision'] <= 1
    assert 0 <= row['recall'] <= 1
  by_method = {(row['method'], row['truth']) for row in result['scores']}
  assert ('greedy_zero', 'components') in by_method
  for truth in ('components', 'paths', 'greedy_zero', 'greedy_resample'):
    assert ('random', truth) in by_method
  assert result['edge_f1'] is None
  json.dumps(result)


def test_a_ranking_that_has_the_true_weights_first_is_perfect():
  one = program('frac_prevs')
  train = compiled_circuits.recorded(one, one.draw(32, 0, 'train'))
  model = compiled_circuits.gate(one, train, 'task_mean')
  units = units_lib.make(model, 'edges')
  paths = path_weights(one.config, one.params)
  by_key = {
    name: paths[name][tuple(np.asarray(index))]
    for name, index in model.edges.items()
  }
  kernel = np.asarray(one.params['lm_head']['kernel'])
  by_key['final_resid'] = kernel.any(axis=1)
  flat = units.flatten(by_key)
  order = np.argsort(~flat, kind='stable')
  scores = compiled_circuits._edge_scores(one, units, order)
  least = min(scores[edge] for edge in one.edges)
  assert least > 1 - flat.sum() / flat.size
  assert all(s < least for e, s in scores.items() if e not in one.edges)


def test_pairs_of_components_are_those_of_the_published_test():
  counts = {'frac_prevs': 23, 'reverse': 77}
  for name, count in counts.items():
    pairs = compiled_circuits.component_pairs(program(name))
    assert len(set(pairs)) == len(pairs) == count
    assert program(name).edges <= set(pairs)


def test_an_unknown_method_or_program_is_named():
  with pytest.raises(ValueError, match=r"methods must be among .* 'acdc'"):
    score('hist', ['acdc'])
  config = experiment.get_config()
  config.programs = 'hist,histogram'
  with pytest.raises(ValueError, match=r"programs must be .* 'histogram'"):
    ground_truth.program_names(config)


@pytest.mark.slow
def test_a_run_writes_its_summary_and_says_what_it_skipped(tmp_path, capsys):
  config = experiment.get_config()
  config.programs, config.methods = 'frac_prevs', 'edge_masks,random'
  ground_truth.run(config, str(tmp_path))
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert summary['edge_f1'] == {'frac_prevs': 1.0}
  assert summary['mean_edge_f1'] == 1.0
  assert summary['greedy']['frac_prevs']['zero']['matches_published']
  assert summary['planted_f1'] == {}
  printed = capsys.readouterr().out
  assert 'planted programs skipped' in printed
  assert 'as published' in printed


def test_node_gates_rank_weights_by_their_less_important_end():
  one = program('frac_prevs')
  train = compiled_circuits.recorded(one, one.draw(32, 0, 'train'))
  model = compiled_circuits.gate(one, train, 'task_mean')
  sizes = units_lib.make(model, 'nodes').sizes
  rng = np.random.default_rng(0)
  scores = {site: rng.random(size) for site, size in sizes.items()}
  for (name, row, column), value in compiled_circuits._weight_scores(
    model, scores
  ).items():
    source, target = name.split('->')
    assert value == min(scores[source][row], scores[target][column])


@pytest.mark.slow
def test_a_program_without_a_file_is_compiled(tmp_path):
  pytest.importorskip('tracr')
  found = ground_truth.load_program('hist', tmp_path)
  assert found.edges == program('hist').edges
  assert dataclasses.asdict(found.config) == dataclasses.asdict(
    program('hist').config
  )


@pytest.mark.slow
def test_a_run_that_is_cut_goes_on_with_the_next_program(tmp_path, monkeypatch):
  scored = []

  def score_program(program, *rest):
    scored.append(program.name)
    if scored == ['hist', 'length']:
      raise KeyboardInterrupt
    return {'edge_f1': 0.1, 'greedy': {}, 'scores': []}

  monkeypatch.setattr(compiled_scores, 'score_program', score_program)
  config = experiment.get_config()
  config.programs, config.methods = 'hist,length', 'random'
  with pytest.raises(KeyboardInterrupt):
    ground_truth.run(config, str(tmp_path))
  summary = ground_truth.run(config, str(tmp_path))
  assert scored == ['hist', 'length', 'length']
  assert summary['edge_f1'] == {'hist': 0.1, 'length': 0.1}
  assert not (tmp_path / 'pruning').exists()
