import dataclasses
import json
import math
import re

import pytest

from experiments import prune as prune_experiment
from experiments import quickstart as experiment
from experiments import strength as strength_experiment
from sparse_interp import tasks
from sparse_interp.circuits import counting, sweep
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.runs import pose, pretrained, prune, quickstart, table
from sparse_interp.training import plan
from sparse_interp.viewer.drawing import circuit_svg
from sparse_interp.viewer.report import write_report
from tests.circuits.known_model import make_known
from tests.refusals import assert_refused, content


def test_all_means_the_twenty_published_tasks_and_commas_separate():
  config = experiment.get_config('laptop')
  assert pose.task_names(config) == list(tasks.TASKS)
  config.tasks = 'with_as,for_while'
  assert pose.task_names(config) == ['with_as', 'for_while']


def test_hyperparameters_of_the_experiment_reach_the_library():
  config = experiment.get_config('laptop')
  config.prune.steps = 17
  assert prune.prune_config(config).steps == 17


def test_an_unknown_hyperparameter_is_named():
  config = experiment.get_config('laptop')
  config.prune.stepz = 3
  with pytest.raises(ValueError, match=r'prune\.stepz .* got 3; remove it'):
    prune.prune_config(config)


@pytest.mark.parametrize(
  ('section', 'field'),
  [('pairs', 'train'), ('pairs', 'test'), ('prune', 'steps')],
)
def test_more_than_fits_in_memory_is_refused_by_field(section, field):
  config = experiment.get_config('laptop')
  model = plan.model_config(config)
  pose.check_memory(config, model)
  config[section][field] = 10**10
  with pytest.raises(ValueError, match=rf'^{section}\.{field} must .*; lower'):
    pose.check_memory(config, model)


def test_a_quickstart_that_cannot_end_does_not_begin(tmp_path):
  config = experiment.get_config('tiny')
  config.pairs.test = 10**10
  with pytest.raises(ValueError, match=r'^pairs\.test must leave the run'):
    quickstart.quickstart(config, str(tmp_path / 'new'))
  config = experiment.get_config('tiny')
  config.data.vocab_size = 10**7
  with pytest.raises(ValueError, match=r'^data\.vocab_size must leave the run'):
    quickstart.quickstart(config, str(tmp_path / 'new'))
  assert not list(tmp_path.iterdir())


def test_long_work_on_pairs_is_shown(capsys, monkeypatch):
  monkeypatch.setattr(table, '_SECONDS', 0)
  show = table.progress('prune', 'with_as')
  counting.counting(show, 'draw test pairs')(5, 100)
  printed = capsys.readouterr().out
  assert 'with_as' in printed
  assert 'draw test pairs: pairs 5, of 100, ' in printed
  assert ' left' in printed


def test_pruning_without_a_model_says_how_to_name_one(tmp_path):
  config = experiment.get_config('tiny')
  config.model_workdir = ''
  with pytest.raises(ValueError, match='model_workdir must name'):
    prune.prune(config, str(tmp_path / 'new'))
  config.model_workdir = str(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='must hold a pretrained model'):
    prune.prune(config, str(tmp_path / 'new'))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('losses', 'missed'),
  [
    ((0.1, 0.6, 0.6), []),
    ((0.16, 0.6, 0.6), ['test_loss <= 0.15']),
    ((0.1, 0.49, 0.4), ['necessity_loss >= 0.5', 'random_loss >= 0.5']),
  ],
)
def test_a_circuit_that_misses_a_bound_is_listed_with_what_it_missed(
  losses, missed
):
  assert prune.missed_bounds(*losses, target=0.15) == missed


def test_geometric_mean_is_of_the_reported_circuits():
  assert sweep.geometric_mean([2, 8]) == pytest.approx(4)
  assert sweep.geometric_mean([0, 4]) == pytest.approx(2)  # 0 counts as 1
  assert sweep.geometric_mean([]) is None


def test_the_table_shows_every_task_and_why_one_has_no_circuit(capsys):
  circuit = {
    'nodes': 12,
    'edges': 9,
    'ablation': 'zero',
    'test_loss': 0.12,
    'necessity_loss': 1.5,
    'random_loss': 0.7,
  }
  table.print_table(
    {
      'tasks': {
        'a': {'full_loss': 0.01, 'circuit': circuit},
        'b': {'full_loss': 0.6, 'circuit': None},
        'c': {'full_loss': None, 'circuit': None, 'unposable': 'why'},
        'd': {
          'full_loss': 0.1,
          'circuit': None,
          'failed_circuit': {'missed': ['test_loss <= 0.15']},
        },
      },
      'learned_tasks': ['a', 'd'],
      'pruned_tasks': ['a'],
      'geometric_mean_edges': math.e,
    }
  )
  printed = capsys.readouterr().out.splitlines()
  rows = {line.split()[0]: line for line in printed[2:6]}
  assert rows['a'].split()[1:] == ['0.010', '12', '9', '0.120', '1.50', '0.70']
  assert 'not learned' in rows['b']
  assert 'cannot be posed' in rows['c']
  assert 'missed test_loss <= 0.15' in rows['d']
  assert '2 tasks learned, 1 circuits' in printed[6]
  assert '2.7' in printed[6]
  assert 'test pairs, ablation: zero' in printed[6]


class _Tokenizer(Tokenizer):
  """Knows no text: the task of the known model is tokens already."""

  def __init__(self):
    pass

  def pieces(self, ids):
    return [f'<{i}>' for i in ids]


@pytest.fixture
def config(monkeypatch):
  """The prune run on the model with a known circuit, two tasks posed to it.

  `with_as` is its task, `else_elif` cannot be posed, and `for_while` is the
  task with the answers exchanged, which it gets all wrong.
  """
  known = make_known()
  model = pretrained.Model(
    known.config,
    known.params,
    _Tokenizer(),
    known.means,
    7,
    {'tokenizer_hash': 'abc'},
  )

  def encode(task, tokenizer, split, count, length, seed, progress):
    if task.name == 'else_elif':
      raise ValueError('tasks: else_elif must give 64 train pairs, got 0.')
    encoded = known.train if split == 'train' else known.test
    if task.name == 'for_while':
      encoded = dataclasses.replace(encoded, answers=encoded.answers[:, ::-1])
    return dataclasses.replace(encoded, name=task.name)

  monkeypatch.setattr(pretrained, 'load', lambda workdir: model)
  monkeypatch.setattr(pose, 'encode_task', encode)
  config = prune_experiment.get_config()
  config.model_workdir = 'known'
  config.tasks = 'with_as'
  config.prune.update(
    steps=60,
    batch_pairs=8,
    k_coef=1e-3,
    selection_pairs=16,
    holdout_pairs=16,
    calibrate='after',
  )
  return config


@pytest.mark.parametrize(
  ('changes', 'parts'),
  [
    ({'tasks': 'else_elif'}, ['tasks: else_elif must give 64 train pairs']),
    (
      {'tasks': 'for_while,else_elif'},
      ['prune.target_loss must be reached by the full', 'got 0.15', 'raise'],
    ),
    (
      {'prune.target_loss': 0.8},
      ['prune.target_loss must be less', '0.69', 'got 0.8', 'lower target'],
    ),
    ({'prune.gates': 'heads'}, ['prune.gates must be one of nodes, edges']),
    ({'prune.ablation': 'noise'}, ['prune.ablation must be one of mean,']),
  ],
)
def test_what_cannot_be_pruned_ends_in_one_line_and_writes_nothing(
  config, tmp_path, capfd, changes, parts
):
  with config.unlocked():
    config.prune.update(gates='nodes', ablation='mean')
  config.update_from_flattened_dict(changes)
  assert_refused(capfd, config, tmp_path / 'w', *parts)
  assert not (tmp_path / 'w').exists()


def test_all_tasks_are_listed_though_none_can_be_pruned(
  config, tmp_path, monkeypatch
):
  tasks_of_run = {
    name: tasks.TASKS[name] for name in ('else_elif', 'for_while')
  }
  monkeypatch.setattr(pose.tasks_lib, 'TASKS', tasks_of_run)
  config.tasks = 'all'
  summary = prune.prune(config, str(tmp_path / 'w'))
  assert 'unposable' in summary['tasks']['else_elif']
  assert summary['tasks']['for_while']['learned'] is False
  assert summary['learned_tasks'] == []


def test_no_task_to_compare_ways_of_pruning_on_is_said_in_one_line(
  config, tmp_path, capfd, monkeypatch
):
  tasks_of_run = {name: tasks.TASKS[name] for name in ('for_while',)}
  monkeypatch.setattr(pose.tasks_lib, 'TASKS', tasks_of_run)
  strength = strength_experiment.get_config()
  strength.model_workdir = 'known'
  assert_refused(
    capfd, strength, tmp_path / 'w', 'prune.target_loss must be reached'
  )
  assert not (tmp_path / 'w').exists()


def test_an_edge_circuit_is_found_reported_refused_elsewhere_and_drawn(
  config, tmp_path, capfd
):
  config.tasks = 'with_as,else_elif'
  with config.unlocked():
    config.prune.update(gates='edges', ablation='zero')
  workdir = tmp_path / 'w'
  summary = prune.prune(config, str(workdir))
  found = summary['tasks']['with_as']['circuit']
  assert (found['gates'], found['nodes'], found['edges']) == ('edges', 4, 2)
  assert found['ablation'] == 'zero'
  assert 'unposable' in summary['tasks']['else_elif']
  assert 'ablation: zero' in capfd.readouterr().out

  report = tmp_path / 'report.html'
  write_report(str(workdir), str(report))
  text = report.read_text('utf-8')
  data = json.loads(re.search(r'id="data">(.*?)</s', text).group(1))
  shown = data['circuits'][0]
  assert shown['record']['gates'] == 'edges'
  assert [chart['title'] for chart in shown['history']] == [
    'Task loss',
    'Active edges',
  ]
  ends = [(shown['ids'][a], shown['ids'][b]) for a, b, *_ in shown['edges']]
  assert ends == [
    ('0.attn.act_in:0', '0.attn.v:5'),
    ('0.attn.v:5', '0.attn.resid_delta:3'),
  ]
  svg = circuit_svg(str(workdir / 'circuits' / 'with_as'))
  assert svg.count('data-edge=') == 2

  path = workdir / 'circuits' / 'with_as' / 'circuit.json'
  stored = json.loads(path.read_text())
  for field, value, parts in (
    ('provenance', {'params_hash': 'other'}, ['workdir must hold circuits of']),
    ('schema_version', 7, ['schema_version of', 'must be 1, got 7']),
  ):
    path.write_text(json.dumps({**stored, field: value}))
    before = content(workdir)
    assert_refused(capfd, config, workdir, *parts)
    assert content(workdir) == before
  with pytest.raises(ValueError, match='schema_version must be 1, got 7'):
    write_report(str(workdir), str(report))
