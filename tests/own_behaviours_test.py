"""The guide to behaviours of one's own does what it says."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.tasks.encoding import encode_task
from sparse_interp.tasks.own import read_task

ROOT = pathlib.Path(__file__).parents[1]
GUIDE = (ROOT / 'docs' / 'own_behaviours.md').read_text()
SCRIPT, NOTEBOOK = re.findall(r'```python\n(.*?)```', GUIDE, re.DOTALL)
COMMANDS = re.findall(
  r'^    (python -m sparse_interp .*)$', GUIDE, re.MULTILINE
)


def _run(command, directory):
  flags = os.environ.get('XLA_FLAGS', '').replace('count=8', 'count=1')
  done = subprocess.run(
    [sys.executable, *command],
    cwd=directory,
    env=os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  """Where the script of the guide has been run."""
  directory = tmp_path_factory.mktemp('guide')
  (directory / 'make_pairs.py').write_text(SCRIPT)
  _run(['make_pairs.py'], directory)
  return directory


def test_the_script_writes_pairs_that_can_be_posed(directory):
  task = read_task(directory / 'agreement.jsonl')
  assert task.listed.count('train') + task.listed.count('test') == 400
  assert task.conditions == ('plural between', 'singular between')
  assert not task.listed.left_out
  lines = (directory / 'sentences.jsonl').read_text().splitlines()
  texts = [json.loads(line)['text'] for line in lines]
  prompts = {
    prompt
    for pair in (
      *task.pairs('train', task.listed.count('train')),
      *task.pairs('test', task.listed.count('test')),
    )
    for prompt in pair.prompts
  }
  assert len(prompts) == 800
  read = {re.split(r' (?:is|are) ', text)[0] for text in texts}
  assert not prompts & read
  tokenizer = train_tokenizer(texts, 384)
  train, test = (
    encode_task(task, tokenizer, split, count, 80, 0)
    for split, count in (('train', 768), ('test', 256))
  )
  assert len(train.conditions) + len(test.conditions) == 400
  assert not train.rejected
  assert train.longer_answers == 0


def test_the_line_that_it_shows_is_one_of_a_file(tmp_path):
  (line,) = re.findall(r'```json\n(.*?)```', GUIDE, re.DOTALL)
  changed = [line.replace('door', f'door{i}') for i in range(40)]
  (tmp_path / 'pairs.jsonl').write_text(''.join(changed))
  assert read_task(tmp_path / 'pairs.jsonl').pairs('train', 1)


@pytest.mark.slow
def test_two_commands_lead_from_text_to_page(directory):
  assert len(COMMANDS) == 2
  said = [_run(shlex.split(line)[1:], directory) for line in COMMANDS]
  task = read_task(directory / 'agreement.jsonl')
  assert f'{task.listed.count("train")} train and ' in said[1]
  workdir = directory / 'runs' / 'agreement'
  summary = json.loads((workdir / 'summary.json').read_text())
  entry = summary['tasks']['agreement']
  assert entry['circuit'] is not None, entry.get('reason')
  assert all(entry['circuit']['bounds'].values())
  assert set(entry['circuit']['test_conditions']) == set(task.conditions)
  assert entry['description'] == task.description
  assert entry['pairs_file']['sha256'] == task.hash
  circuit = circuit_lib.load(workdir / 'circuits' / 'agreement')
  assert circuit.description == task.description
  assert circuit.provenance['task_hash'] == task.hash
  assert 'final_kwarg' not in summary['tasks']
  page = (workdir / 'report.html').read_text()
  for text in ('agreement.jsonl', 'plural between', task.hash):
    assert text in page


@pytest.mark.long
def test_five_lines_of_python_lead_to_a_page(directory, monkeypatch):
  if not (directory / 'runs' / 'sentences').exists():
    _run(shlex.split(COMMANDS[0])[1:], directory)
  monkeypatch.chdir(directory)
  exec(compile(NOTEBOOK, 'guide', 'exec'), {})
  assert 'agreement.jsonl' in (directory / 'page.html').read_text()
