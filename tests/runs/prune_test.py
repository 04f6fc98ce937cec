import dataclasses
import json
import os
import re
import shutil

import pytest

from experiments import prune as prune_experiment
from experiments import quickstart as experiment
from experiments import strength as strength_experiment
from sparse_interp import tasks
from sparse_interp.circuits import counting, unfinished
from sparse_interp.circuits.selecting import sweep
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.files import sealed, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models.model import Model
from sparse_interp.runs import (
  pair_files,
  pose,
  pretrained,
  prune,
  quickstart,
  table,
)
from sparse_interp.training import plan
from sparse_interp.viewer.drawing import circuit_svg
from sparse_interp.viewer.report import write_report
from tests.circuits.known_model import make_known
from tests.refusals import assert_refused, content


def test_all_means_the_twenty_published_tasks_and_commas_separate():
  config = experiment.get_config('laptop')
  assert list(pair_files.tasks_of(config)) == list(tasks.TASKS)
  config.tasks = 'with_as,for_while'
  assert list(pair_files.tasks_of(config)) == ['with_as', 'for_while']


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
    quickstart.run(config, str(tmp_path / 'new'))
  config = experiment.get_config('tiny')
  config.data.vocab_size = 10**7
  with pytest.raises(ValueError, match=r'^data\.vocab_size must leave the run'):
    quickstart.run(config, str(tmp_path / 'new'))
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
    prune.run(config, str(tmp_path / 'new'))
  config.model_workdir = str(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='must hold a pretrained model'):
    prune.run(config, str(tmp_path / 'new'))
  assert not list(tmp_path.iterdir())


def test_geometric_mean_is_of_the_reported_circuits():
  assert sweep.geometric_mean([2, 8]) == pytest.approx(4)
  assert sweep.geometric_mean([0, 4]) == pytest.approx(2)  # 0 counts as 1
  assert sweep.geometric_mean([]) is None


class _Tokenizer(Tokenizer):
  """Knows no text: the task of the known model is tokens already."""

  def __init__(self):
    self.hash = 'abc'

  def pieces(self, ids):
    return [f'<{i}>' for i in ids]


@pytest.fixture
def config(monkeypatch):
  """The prune run on the model with a known circuit, two tasks posed to it.

  `with_as` is its task, `else_elif` cannot be posed, and `for_while` is the
  task with the answers exchanged, which it gets all wrong.
  """
  known = make_known()
  model = Model(
    known.config, known.params, _Tokenizer(), known_means=known.means
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
    (
      {'prune.least_probability': 1.0},
      ['prune.least_probability must be reached', 'got 1.0 and at most 0.'],
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


def test_train_pairs_say_what_is_learned(config, monkeypatch):
  encode = pose.encode_task

  def turned_in_tests(task, tokenizer, split, *rest):
    encoded = encode(task, tokenizer, split, *rest)
    if split == 'train':
      return encoded
    return dataclasses.replace(encoded, answers=encoded.answers[:, ::-1])

  monkeypatch.setattr(pose, 'encode_task', turned_in_tests)
  model = pretrained.load('known')
  entry = pose.measure_tasks(config, model)['with_as'].entry
  assert entry['learned']
  assert entry['learned_on']['full_loss'] < 0.15 < entry['full_loss']


def test_all_tasks_are_listed_though_none_can_be_pruned(
  config, tmp_path, monkeypatch
):
  tasks_of_run = {
    name: tasks.TASKS[name] for name in ('else_elif', 'for_while')
  }
  monkeypatch.setattr(pair_files.tasks_lib, 'TASKS', tasks_of_run)
  config.tasks = 'all'
  summary = prune.run(config, str(tmp_path / 'w'))
  assert 'unposable' in summary['tasks']['else_elif']
  assert summary['tasks']['for_while']['learned'] is False
  assert summary['learned_tasks'] == []


def test_no_task_to_compare_ways_of_pruning_on_is_said_in_one_line(
  config, tmp_path, capfd, monkeypatch
):
  tasks_of_run = {name: tasks.TASKS[name] for name in ('for_while',)}
  monkeypatch.setattr(pair_files.tasks_lib, 'TASKS', tasks_of_run)
  strength = strength_experiment.get_config()
  strength.model_workdir = 'known'
  assert_refused(
    capfd, strength, tmp_path / 'w', 'prune.target_loss must be reached'
  )
  assert not (tmp_path / 'w').exists()


class _Cut(BaseException):
  """A limit on the time of a process: nothing in between handles it."""


@pytest.mark.slow
def test_a_task_that_is_cut_time_and_again_does_end(
  config, tmp_path, monkeypatch
):
  append = unfinished.Unfinished._append
  known = []

  def cut(self, entry):
    append(self, entry)
    known.append(entry)
    if len(known) % 3 == 0:
      raise _Cut

  on_the_way = tmp_path / 'cut' / 'pruning' / 'with_as'
  cuts = 0
  with monkeypatch.context() as patch:
    patch.setattr(unfinished.Unfinished, '_append', cut)
    while True:
      try:
        prune.run(config, str(tmp_path / 'cut'))
        break
      except _Cut:
        cuts += 1
        assert (on_the_way / 'gates.npz').exists()
  assert cuts >= 3
  questions = [question for question, _ in known]
  assert len(set(questions)) == len(questions)  # nothing was asked again
  assert not on_the_way.parent.exists()
  prune.run(config, str(tmp_path / 'whole'))
  for name in ('circuit.npz', 'circuit.json'):
    ours, theirs = (
      (tmp_path / run / 'circuits' / 'with_as' / name).read_bytes()
      for run in ('cut', 'whole')
    )
    if name == 'circuit.json':
      ours, theirs = map(json.loads, (ours, theirs))
      for found in (ours, theirs):
        del found['provenance']['prune_seconds']
        found.pop('sha256', None)
    assert ours == theirs


def test_what_is_left_of_an_elimination_is_called_an_estimate():
  line = table.progress_line(
    'x', {'phase': 'eliminate', 'pass': 1, 'about_seconds_left': 70.0}
  )
  assert line.split(maxsplit=1)[1] == (
    'eliminate: pass 1, about 1 min 10 s left'
  )


@pytest.mark.slow
def test_an_edge_circuit_is_found_reported_refused_elsewhere_and_drawn(
  config, tmp_path, capfd
):
  config.tasks = 'with_as,else_elif'
  with config.unlocked():
    config.prune.update(gates='edges', ablation='zero')
  workdir = tmp_path / 'w'
  summary = prune.run(config, str(workdir))
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
    ('schema_version', 7, ['schema_version must be 1, got 7']),
  ):
    sealed.write_json(path, {**stored, field: value})
    before = content(workdir)
    assert_refused(capfd, config, workdir, *parts)
    assert content(workdir) == before
  with pytest.raises(ValueError, match='schema_version must be 1, got 7'):
    write_report(str(workdir), str(report))


@pytest.mark.slow
def test_circuits_that_are_lost_or_damaged_are_found_again(
  config, tmp_path, capsys, monkeypatch
):
  workdir = tmp_path / 'w'
  before = prune.run(config, str(workdir))
  assert before['versions'] == [
    {
      'phase': 'prune',
      'from_task': 'with_as',
      'versions': versions.current(),
    }
  ]
  arrays = workdir / 'circuits' / 'with_as' / 'circuit.npz'
  other = versions.current() | {'jax': '9.9'}
  monkeypatch.setattr(versions, 'current', lambda: other)
  # Nothing is found, so that nothing changes hands.
  assert prune.run(config, str(workdir))['versions'] == before['versions']
  os.truncate(arrays, 100)
  capsys.readouterr()
  again = prune.run(config, str(workdir))
  assert f'found anew: circuit file {arrays}' in capsys.readouterr().out
  assert again['tasks'] == before['tasks']
  assert again['versions'][0]['versions'] == other
  shutil.rmtree(workdir / 'circuits')
  assert prune.run(config, str(workdir))['tasks'] == before['tasks']
  assert arrays.exists()


def test_a_circuit_of_others_is_neither_taken_nor_replaced(config, tmp_path):
  workdir = tmp_path / 'w'
  with (
    pytest.raises(KeyboardInterrupt),
    workdir_lib.claimed(workdir, config.to_dict()),
  ):
    raise KeyboardInterrupt
  path = workdir / 'circuits' / 'with_as' / 'circuit.npz'
  path.parent.mkdir(parents=True)
  path.write_text('mine')
  with pytest.raises(ValueError, match=r'with_as/circuit\.npz, which no run'):
    prune.run(config, str(workdir))
  assert path.read_text() == 'mine'
