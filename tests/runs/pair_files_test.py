"""Runs take files of pairs, and go on with the same pairs or not at all."""

import json

import pytest

from experiments import prune as prune_experiment
from experiments import quickstart as quickstart_experiment
from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.runs import pair_files, pose, pretrained, prune, quickstart
from sparse_interp.tasks import encoding
from sparse_interp.tasks.encoding import encode_task
from sparse_interp.tasks.own import read_task
from sparse_interp.training import pretrain
from tests.refusals import assert_refused


class _Cut(BaseException):
  """What ends a run as a limit on its time would."""


def _cut(*args, **kwargs):
  raise _Cut


def _write(path, count, answers=(' x', ' y')):
  lines = [
    {'prompts': [f'The key {i}', f'The keys {i}'], 'answers': answers}
    for i in range(count)
  ]
  path.write_text('\n'.join(map(json.dumps, lines)))
  return path


@pytest.fixture
def file(tmp_path):
  return _write(tmp_path / 'agreement.jsonl', 60)


@pytest.fixture
def config(file):
  config = prune_experiment.get_config()
  config.model_workdir = 'model'
  config.tasks = f'with_as, {file}'
  return config


def test_names_and_files_are_the_tasks_of_a_run(config, file):
  tasks = pair_files.tasks_of(config)
  assert list(tasks) == ['with_as', 'agreement']
  assert tasks['agreement'] == read_task(file)


@pytest.mark.parametrize('run', ['prune', 'quickstart'])
def test_a_run_does_not_go_on_with_other_pairs(
  config, file, tmp_path, monkeypatch, run
):
  do = prune.run
  if run == 'quickstart':
    do, tasks = quickstart.run, config.tasks
    config = quickstart_experiment.get_config('tiny')
    config.tasks = tasks
  monkeypatch.setattr(pretrained, 'load', _cut)
  monkeypatch.setattr(pretrain, 'run', _cut)
  workdir = tmp_path / 'w'
  with pytest.raises(_Cut):
    do(config, str(workdir))
  kept = json.loads((workdir / 'config.json').read_text())
  assert kept['task_hashes'] == [['agreement', read_task(file).hash]]
  before = file.read_text()
  file.write_text('\r\n'.join(before.split('\n')[::-1]))
  with pytest.raises(_Cut):  # the same pairs
    do(config, str(workdir))
  file.write_text(before.replace('The keys 7', 'Those keys 7'))
  with pytest.raises(ValueError, match='must hold the pairs that it held') as e:
    do(config, str(workdir))
  assert str(workdir) in str(e.value)
  assert json.loads((workdir / 'config.json').read_text()) == kept


def test_pairs_that_change_while_a_run_is_at_work_are_noticed(
  config, file, tmp_path
):
  remembered = pair_files.remembered(config, str(tmp_path / 'w'))
  pair_files.tasks_of(remembered)
  _write(file, 61)
  with pytest.raises(ValueError, match='when this run began'):
    pair_files.tasks_of(remembered)


def test_without_files_a_configuration_is_as_it_was(config, tmp_path):
  config.tasks = 'with_as'
  assert pair_files.remembered(config, str(tmp_path)) is config
  assert 'task_hashes' not in config


@pytest.mark.parametrize(
  ('content', 'name', 'parts'),
  [
    ('', 'agreement.jsonl', ['an empty file']),
    ('{}', 'agreement.jsonl', ['line 1 with no prompts']),
    (None, 'agreement.jsonl', ['agreement.jsonl: No such file']),
    (' ', 'with_as.jsonl', ['must hold a pair']),
  ],
)
def test_what_is_wrong_is_said_before_anything_is_claimed(
  config, tmp_path, capfd, content, name, parts
):
  path = tmp_path / 'other' / name
  path.parent.mkdir()
  if content is not None:
    path.write_text(content)
  config.tasks = str(path)
  assert_refused(capfd, config, tmp_path / 'w', *parts)
  quick = quickstart_experiment.get_config('tiny')
  quick.tasks = config.tasks
  assert_refused(capfd, quick, tmp_path / 'w', *parts)
  assert not (tmp_path / 'w').exists()


def test_what_became_of_pairs_is_said_with_counts(tmp_path, monkeypatch):
  path = _write(tmp_path / 'few.jsonl', 90, ('x', 'yy'))
  lines = path.read_text().split('\n')
  path.write_text('\n'.join([*lines, lines[0]]))
  task = read_task(path)
  tokenizer = train_tokenizer(['a'], 257)
  posed = [
    encode_task(task, tokenizer, split, 999, 14, 0)
    for split in ('train', 'test')
  ]
  entry = pair_files.entry(task, *posed)
  counts = [len(one.conditions) for one in posed]
  assert entry['description'] == task.description
  assert entry['pairs_file'] == {
    'file': 'few.jsonl',
    'sha256': task.hash,
    'left_out': {'there more than once': 1},
    'longer_answers': sum(counts),
  }
  said = pair_files.line(task, entry, *posed)
  assert said.split(maxsplit=1)[1] == (
    f'{counts[0]} train and {counts[1]} test pairs of few.jsonl; 1 left out, '
    f'there more than once; of the answers of {sum(counts)} only the first '
    'token counts'
  )
  monkeypatch.setitem(encoding.FEWEST, 'train', 1)
  short = encode_task(task, tokenizer, 'train', 999, 11, 0)
  said = pair_files.line(task, entry, short, posed[1])
  assert 'train pairs not posed, since a prompt is longer than' in said


def test_where_the_model_has_seen_no_such_text_the_remedy_is_such_text(file):
  entry = {'full_loss': 1.31, **pair_files.entry(read_task(file))}
  said = pose.why_none({'agreement': entry}, 0.15)
  assert 'got 0.15 and losses of agreement 1.310; train the model' in said
  assert 'on text with such prompts' in said
  del entry['pairs_file']
  assert 'on text' not in pose.why_none({'with_as': entry}, 0.15)


def test_a_fact_about_two_logits_is_no_behaviour():
  reached = {'full_loss': 0.02, 'full_probability': 0.004}
  said = pose.why_none({'rare': {'learned_on': reached}}, 0.15, 0.1)
  assert said.startswith('prune.least_probability must be reached')
  assert 'got 0.1 and at most 0.004' in said
