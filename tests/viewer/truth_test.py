"""The page says what the artifacts say, whatever that is, and nothing else."""

import json
import re
import shutil

import numpy as np
import pytest

from sparse_interp.files import sealed
from sparse_interp.viewer.artifacts import read_circuit
from sparse_interp.viewer.drawing import lay_out_circuit
from sparse_interp.viewer.report import write_report
from tests.viewer.fake_workdir import make_workdir

NAME = 'set_or_string'


@pytest.fixture
def run(tmp_path):
  return make_workdir(tmp_path / 'run', {NAME: 12}, steps=3)


def _change(path, **fields):
  """Sets dotted fields of a json file; None removes one."""
  document = json.loads(path.read_text())
  for dotted, value in fields.items():
    *keys, last = dotted.split('__')
    section = document
    for key in keys:
      section = section.setdefault(key, {})
    if value is None:
      section.pop(last, None)
    else:
      section[last] = value
  sealed.write_json(path, document)


def _page(run):
  """(data of the page, all its words but those of configuration)."""
  write_report(str(run), str(run / 'report.html'))
  text = (run / 'report.html').read_text('utf-8')
  found = re.search(r'<script type="application/json" id="data">(.*?)</s', text)
  data = json.loads(found.group(1))
  told = {**data, 'config': None}
  told['circuits'] = [{**one, 'record': None} for one in data['circuits']]
  static = re.sub(r'<(style|script)\b.*?</\1>', '', text, flags=re.DOTALL)
  words = re.sub(r'<[^>]*>', ' ', static) + json.dumps(told)
  return data, ' '.join(words.split())


def test_the_target_is_that_of_the_run(run):
  _change(
    run / 'summary.json',
    target_loss=0.55,
    asked__config__prune__target_loss=0.55,
  )
  _change(
    run / 'circuits' / NAME / 'circuit.json', prune_config__target_loss=0.55
  )
  data, words = _page(run)
  assert data['target'] == {'loss': 0.55, 'text': '0.55', 'on': 'task'}
  assert 'test loss of the full model at most 0.55' in words
  assert data['circuits'][0]['target'] == 'test_loss at most 0.55'
  assert 'test loss of the full model 0.413, target 0.55' in words
  told = words.replace('reaches the target loss of 0.15', '')  # a reason
  assert not re.search(r'(target|at most|<=) \S*0\.15\b', told)


def test_no_target_is_stated_where_no_artifact_has_one(run):
  _change(run / 'summary.json', target_loss=None, asked__config__prune=None)
  _change(run / 'circuits' / NAME / 'circuit.json', prune_config=None)
  data, words = _page(run)
  assert data['target'] == {'loss': None, 'text': '', 'on': 'task'}
  assert data['circuits'][0]['target'] == ''
  assert data['tiles'][0][1] == 'tasks learned'
  assert 'at most' not in words


def test_what_was_asked_for_is_not_rounded(run):
  _change(
    run / 'summary.json',
    target_loss=0.1234567,
    asked__config__prune__target_loss=0.1234567,
  )
  path = run / 'circuits' / NAME / 'circuit.json'
  _change(path, prune_config__target_loss=0.1234567)
  data, words = _page(run)
  assert data['target']['text'] == '0.1234567'
  assert data['config']['prune']['target_loss'] == 0.1234567
  assert data['circuits'][0]['target'] == 'test_loss at most 0.1234567'
  document = sealed.read_json(path, 'delete it') | {'history': None}
  assert data['circuits'][0]['record'] == document
  assert 'at most 0.1234567' in data['tiles'][0][1]
  assert 'target 0.1234567' in words


def test_a_target_on_kl_is_one_of_kl(run):
  _change(run / 'summary.json', target_on='kl', target_loss=0.02)
  _change(
    run / 'circuits' / NAME / 'circuit.json',
    prune_config__target_on='kl',
    prune_config__target_loss=0.02,
  )
  data, _ = _page(run)
  assert data['target'] == {'loss': 0.02, 'text': '0.02', 'on': 'kl'}
  assert data['circuits'][0]['target'] == 'test_kl at most 0.02'
  assert data['tasks'][0]['status'] == 'circuit found'  # test_loss is above


def test_a_circuit_that_missed_a_bound_is_drawn_and_says_so(run):
  summary = json.loads((run / 'summary.json').read_text())
  entry = summary['tasks'][NAME]
  entry['failed_circuit'] = {
    **entry['circuit'],
    'missed': ['random_loss >= 0.8'],
  }
  entry['circuit'] = None
  entry['reason'] = 'the circuit found missed random_loss >= 0.8 with 0.712'
  _change(run / 'summary.json', tasks=summary['tasks'])
  data, words = _page(run)
  row = data['tasks'][0]
  assert (row['status'], row['stored']) == ('bound missed', True)
  assert row['circuit']['random_loss'] == 0.7121
  assert data['tiles'][1] == ['0 of 1', 'circuits below met every bound']
  assert data['circuits'][0]['standing'] == (
    'Not counted as a circuit: bound missed: the circuit found missed '
    'random_loss >= 0.8 with 0.712.'
  )
  assert len(data['circuits'][0]['ids'])
  assert 'learned, but the circuit' not in words


def test_raw_loss_scale_and_shift_stand_beside_the_calibrated_loss(run):
  data, _ = _page(run)
  shown = data['tasks'][0]['circuit']
  assert (shown['test_loss'], shown['raw_loss']) == (0.1432, 0.5812)
  assert (shown['scale'], shown['shift']) == (1.31, -0.04)
  example = data['circuits'][0]['record']['examples'][0]
  assert example['raw_probability'] == 0.6123
  assert example['full_probability'] == 0.9876


def test_activations_are_said_to_be_of_whom_they_are(run):
  assert _page(run)[0]['circuits'][0]['activations_are'].startswith(
    'in the circuit'
  )
  _change(run / 'circuits' / NAME / 'circuit.json', formula__activation=None)
  assert _page(run)[0]['circuits'][0]['activations_are'].startswith(
    'in the full model, nothing ablated'
  )


@pytest.mark.parametrize(
  ('fields', 'lead'),
  [
    ({}, 'It was trained on: idioms.'),
    (
      {
        'asked__config__data__corpora': [['files:/a/*.txt', 0.5], ['stdlib', 1]]
      },
      'It was trained on: files:/a/*.txt, stdlib.',
    ),
    (
      {'imported': {'source': '/models/gpt2', 'kind': 'GPT-2'}},
      'It was imported from /models/gpt2.',
    ),
    (
      {
        'asked__config__data': None,
        'asked__config__model_workdir': 'runs/other',
      },
      'Its workdir is runs/other.',
    ),
    ({'asked': None}, 'A transformer of 2 layers'),
  ],
)
def test_the_text_and_the_model_are_those_of_the_run(run, fields, lead):
  _change(run / 'summary.json', **fields)
  data, words = _page(run)
  assert lead in data['lead']
  assert data['lead'].startswith(
    'A transformer of 2 layers and 64 residual channels.'
  )
  for untold in ('source code', 'almost all zero', 'weight-sparse', 'python'):
    assert untold not in words
  if not fields.get('asked__config__data__corpora') and fields:
    assert 'trained on' not in words


@pytest.mark.parametrize(
  ('kind', 'gates', 'outside', 'mean'),
  [
    (
      'mean',
      'nodes',
      'held at its mean over the model',
      'when ablated',
    ),
    ('task_mean', 'nodes', 'mean over train prompts', 'when ablated'),
    ('zero', 'edges', 'a removed edge carries 0', 'when ablated'),
    ('resample', 'nodes', 'its value on another prompt', 'mean (ablated, it'),
    (
      'counterfactual',
      'edges',
      'other prompt of the pair',
      'mean (ablated, it',
    ),
    ('subsets', 'nodes', 'a random half at a time', 'half of the time'),
    ('adversary', 'nodes', 'kind: adversary', 'when ablated'),
    (
      'zero,resample',
      'nodes',
      '0, or its value on another prompt of the task (numbers are of the first',
      'when ablated',
    ),
  ],
)
def test_what_removed_parts_take_is_that_of_the_circuit(
  run, kind, gates, outside, mean
):
  _change(
    run / 'circuits' / NAME / 'circuit.json', ablation__kind=kind, gates=gates
  )
  data, words = _page(run)
  assert outside in data['outside']
  assert outside in data['circuits'][0]['ablation']
  assert mean in data['circuits'][0]['means_are']
  assert 'frozen at its average' not in words
  if kind in ('zero', 'resample', 'counterfactual', 'task_mean'):
    assert 'text sample' not in words


def test_means_over_no_count_of_tokens_name_none(run):
  _change(run / 'circuits' / NAME / 'circuit.json', ablation__tokens=0)
  assert 'tokens' not in _page(run)[0]['outside']


@pytest.mark.parametrize(
  ('weight', 'title'),
  [(0.0, 'Task loss'), (1.0, 'KL'), (0.25, '0.75 task loss + 0.25 KL')],
)
def test_the_loss_of_the_search_is_named_for_what_it_was(run, weight, title):
  _change(
    run / 'circuits' / NAME / 'circuit.json', prune_config__kl_weight=weight
  )
  assert _page(run)[0]['circuits'][0]['history'][0]['title'] == title


def test_an_interrupted_run_shows_circuits_and_claims_nothing_of_them(run):
  _change(run / 'summary.json', tasks=None, geometric_mean_edges=None)
  data, _ = _page(run)
  assert data['tasks'] == []
  assert data['tiles'][0] == [
    '1',
    'circuits below; summary.json does not say which met their bounds',
  ]
  assert 'does not list this circuit' in data['circuits'][0]['standing']


def test_a_run_without_tasks_circuits_or_model_is_not_given_any(run):
  shutil.rmtree(run / 'circuits')
  asked = {'config': {'run': 'kernels'}, 'seed': 3}
  sealed.write_json(run / 'summary.json', {'asked': asked})
  data, words = _page(run)
  assert data['title'] == 'A run of kernels'
  assert data['tiles'] == [] == data['tasks'] == data['method']
  assert (data['lead'], data['outside']) == ('', '')
  assert 'A transformer' not in words


def test_tasks_of_another_kind_of_run_are_not_called_unlearned(run):
  _change(
    run / 'summary.json', tasks={'a': {'trials': 4, 'circuits': {}}, 'b': None}
  )
  data, _ = _page(run)
  assert [row['status'] for row in data['tasks']] == ['not measured']
  assert 'learned' not in data['tiles'][0][1]


def test_a_copied_circuit_is_shown_under_its_own_name(run):
  shutil.copytree(run / 'circuits' / NAME, run / 'circuits' / 'copy')
  data, _ = _page(run)
  assert [one['name'] for one in data['circuits']] == [NAME, 'copy']
  assert data['circuits'][0]['standing'] == ''
  assert 'does not list' in data['circuits'][1]['standing']
  assert data['tiles'][1][0] == '1 of 2'


def test_numbers_of_two_circuits_are_not_mixed(run):
  _change(run / 'circuits' / NAME / 'circuit.json', metrics__test_loss=0.01)
  data, _ = _page(run)
  assert data['tasks'][0]['status'] == 'files differ'
  assert data['tiles'][1][0] == '0 of 1'


def test_weights_of_an_imported_model_are_counted_over_all_tensors(run):
  nonzeros = {'a': {'asked': None, 'found': 30, 'size': 40}}
  _change(run / 'summary.json', nonzeros=nonzeros)
  tiles = _page(run)[0]['tiles']
  assert ['1 in 1.33', 'weights nonzero: 30 of 40 in all tensors'] in tiles


def test_a_read_of_a_parallel_block_is_not_joined_to_its_own_write(run):
  path = run / 'circuits' / NAME
  document = json.loads((path / 'circuit.json').read_text())
  channel = document['nodes']['0.attn.resid_delta'][0]
  nodes = {site: [] for site, _ in document['sites']}
  stream = ('attn.act_in', 'attn.resid_delta', 'mlp.act_in', 'mlp.resid_delta')
  for layer in (0, 1):
    for site in stream:
      nodes[f'{layer}.{site}'] = [channel]
  document |= {'nodes': nodes, 'node_count': 8, 'edge_count': 0, 'examples': []}
  with np.load(path / 'circuit.npz') as stored:
    arrays = {
      name: stored[name][:0] if name.startswith('edges/') else stored[name]
      for name in stored.files
    }
  np.savez(path / 'circuit.npz', **arrays)
  found = {}
  for parallel in (False, True):
    document['model']['parallel_residual'] = parallel
    (path / 'circuit.json').write_text(json.dumps(document))
    circuit = read_circuit(path)
    sites = [circuit.sites[site] for site, _ in circuit.nodes]
    found[parallel] = {
      (sites[a], sites[b]) for a, b in lay_out_circuit(circuit).stream
    }
  own = ('0.attn.resid_delta', '0.mlp.act_in')
  assert own in found[False]
  assert own not in found[True]
  assert ('0.mlp.resid_delta', '1.attn.act_in') in found[True]
  assert not any(b == '0.mlp.act_in' for _, b in found[True])


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'node_count': 99}, 'where node_count is 99'),
    ({'edge_count': 99}, 'where edge_count is 99'),
  ],
)
def test_counts_that_are_not_true_are_refused(run, fields, words):
  _change(run / 'circuits' / NAME / 'circuit.json', **fields)
  with pytest.raises(ValueError, match=words):
    _page(run)


@pytest.mark.parametrize('name', ['edges/weight', 'activation/0.mlp.post_act'])
def test_numbers_that_are_not_finite_are_refused(run, name):
  path = run / 'circuits' / NAME / 'circuit.npz'
  with np.load(path) as stored:
    arrays = {key: stored[key] for key in stored.files}
  arrays[name].flat[0] = np.inf
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match='that are not finite'):
    _page(run)


def test_an_edited_file_that_carries_its_hash_is_refused(run):
  path = run / 'circuits' / NAME / 'circuit.json'
  sealed.write_json(path, json.loads(path.read_text()))
  _page(run)
  path.write_text(path.read_text().replace('0.1432', '0.0432'))
  with pytest.raises(ValueError, match=r'circuit\.json must be whole JSON as'):
    _page(run)
