"""The command line: what users get wrong ends in one line that helps them."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import quickstart
from experiments.pretrain import tiny
from sparse_interp import main
from sparse_interp.files import whole_file
from tests.refusals import assert_one_line, assert_refused, content

ROOT = pathlib.Path(__file__).parents[1]
TINY = '--config=experiments/pretrain/tiny.py'

# Arguments, and what the line must contain.
WRONG_ARGUMENTS = {
  'no workdir': ([TINY], ['workdir must be given', '--workdir=']),
  'no such file': (
    ['--config=experiments/missing.py', '--workdir={workdir}'],
    ['config must be', 'experiments/missing.py', 'look for one', '--list'],
  ),
  'no such flag': (
    [TINY, '--workdri={workdir}'],
    ['workdri', 'Did you mean: workdir?'],
  ),
  'no such field': (
    [TINY, '--workdir={workdir}', '--config.model.d_modle=64'],
    ['must name a field', 'd_modle', 'did you mean --config.model.d_model=64'],
  ),
  'no flag at all': (
    [TINY, '--workdir={workdir}', 'config.seed=1'],
    ['arguments must be flags', 'config.seed=1', '--name=value'],
  ),
  'no such run': (
    [TINY, '--workdir={workdir}', '--config.run=pretrian'],
    ['run must be one of', 'pretrain', "'pretrian'", '--config.run'],
  ),
  'a configuration that ships, by its name': (
    ['--config=pretrain/tiny', '--workdir={workdir}', '--config.train.fsdp=3'],
    ['train.fsdp must divide the number of devices', 'choose 1 or 2 or 4 or 8'],
  ),
  'density 0': (
    [TINY, '--workdir={workdir}', '--config.sparsity.density=0'],
    ['sparsity.density must be in (0, 1]', 'got 0', 'choose'],
  ),
}


def command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'sparse_interp.main', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  """Every command of WRONG_ARGUMENTS, run side by side, with its workdir."""
  workdirs = {
    name: tmp_path_factory.mktemp('w') / 'w' for name in WRONG_ARGUMENTS
  }
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    futures = {
      name: pool.submit(
        command, *(word.format(workdir=workdirs[name]) for word in arguments)
      )
      for name, (arguments, _) in WRONG_ARGUMENTS.items()
    }
    return {
      name: (future.result(), workdirs[name])
      for name, future in futures.items()
    }


@pytest.mark.parametrize('name', WRONG_ARGUMENTS)
def test_wrong_arguments_end_in_one_line(results, name):
  result, workdir = results[name]
  assert_one_line(result.stderr, *WRONG_ARGUMENTS[name][1])
  assert result.returncode == 2
  assert not workdir.exists()


def _handles(process, signum):
  """Whether a process has a handler, as the kernel sees it."""
  status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
  caught = int(status.split('SigCgt:')[1].split()[0], 16)
  return bool(caught >> (signum - 1) & 1)


@pytest.mark.skipif(not os.path.exists('/proc/self/maps'), reason='needs /proc')
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('seconds', [0, 1])
def test_a_signal_while_it_is_imported_ends_it_in_one_line(
  signum, seconds, tmp_path
):
  process = subprocess.Popen(
    [sys.executable, '-m', 'sparse_interp.main', TINY, f'--workdir={tmp_path}'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  # Nobody but us handles SIGTERM.
  while not _handles(process, signal.SIGTERM):
    time.sleep(0.001)
  maps = pathlib.Path(f'/proc/{process.pid}/maps').read_text()
  assert 'libjax' not in maps  # it listens before it imports what takes long
  time.sleep(seconds)
  process.send_signal(signum)
  output, errors = process.communicate(timeout=60)
  name = signal.Signals(signum).name
  assert output == f'stopped by {name}; the same command goes on\n'
  assert (process.returncode, errors) == (0, '')


def test_help_shows_the_flags():
  result = command('--help')
  assert all(f'--{name}' in result.stdout for name in ('config', 'workdir'))
  assert 'python -m sparse_interp' in result.stdout
  assert result.returncode == 0
  assert not result.stderr


@pytest.mark.parametrize(
  ('override', 'parts'),
  [
    (
      {'sparsity.density': 1.5},
      ['sparsity.density must be in (0, 1]', 'got 1.5', 'choose'],
    ),
    (
      {'model.d_head': 5},
      ['model.d_model must be divisible by model.d_head', '32 and 5', 'choose'],
    ),
    (
      {'model.activation_sites': ('attn_inn',)},
      ['model.activation_sites', 'attn_in,', "'attn_inn'"],
    ),
    (
      {'data.corpora': (('files:/nowhere/*.py', 1.0),)},
      ['data.corpora', '/nowhere/*.py', 'correct the path'],
    ),
    (
      {'data.corpora': (('stdlibs', 1.0),)},
      ['data.corpora', "'stdlibs'", 'stdlib,'],
    ),
    ({'tasks': 'else_elif,no_such_task'}, ['tasks', 'no_such_task', 'choose']),
    ({'pairs.test': 0}, ['pairs.test must be at least 1', 'got 0', 'choose']),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_wrong_field_is_named_and_nothing_is_written(
  capfd, tmp_path, override, parts
):
  config = quickstart.get_config('tiny')
  config.update_from_flattened_dict(override)
  assert_refused(capfd, config, tmp_path / 'workdir', *parts)
  assert not (tmp_path / 'workdir').exists()


def test_corpus_shorter_than_one_context_is_refused(capfd, tmp_path):
  for i in range(20):
    (tmp_path / f'{i}.py').write_text(f'x = {i}\n')
  config = tiny.get_config()
  config.data.corpora = ((f'files:{tmp_path}/*.py', 1.0),)
  config.data.vocab_size = 260
  config.data.length = 1024
  config.train.tokens = 100_000
  assert_refused(
    capfd, config, tmp_path / 'workdir', 'data.corpora', '1024', str(tmp_path)
  )
  assert not (tmp_path / 'workdir').exists()


# A run of a few steps that takes little time to compile.
SHORT = {
  'model.n_layer': 1,
  'model.activation_density': 1.0,
  'train.tokens': 12 * 8 * 32,
}


def short():
  config = tiny.get_config()
  config.update_from_flattened_dict(SHORT)
  return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Workdir of a finished run."""
  workdir = tmp_path_factory.mktemp('trained')
  main.run(short(), str(workdir))
  return workdir


@pytest.mark.slow
def test_workdir_of_another_configuration_is_refused(capfd, trained):
  before = content(trained)
  config = short()
  config.model.d_model = 48
  assert_refused(
    capfd,
    config,
    trained,
    'model.d_model',
    '48',
    '32',
    'choose another workdir',
  )
  assert content(trained) == before


@pytest.mark.slow
def test_truncated_checkpoint_is_named(capfd, trained, tmp_path):
  workdir = tmp_path / 'workdir'
  shutil.copytree(trained, workdir)
  # As killed after its last checkpoint, of which the disk then lost a part.
  (workdir / 'summary.json').unlink()
  latest = max((workdir / 'checkpoints').iterdir(), key=lambda p: int(p.name))
  files = [path for path in latest.rglob('*') if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  before = content(workdir)
  assert_refused(
    capfd, short(), workdir, 'checkpoint', str(latest), 'delete', 'run again'
  )
  assert content(workdir) == before


@pytest.mark.slow
def test_model_of_a_truncated_checkpoint_is_not_pruned(
  capfd, trained, tmp_path
):
  model = tmp_path / 'model'
  shutil.copytree(trained, model)
  for path in (model / 'checkpoints').rglob('*'):
    if path.is_file() and 'params' in path.parts:
      os.truncate(path, path.stat().st_size // 2)
  config = quickstart.get_config('tiny')
  config.run = 'prune'
  with config.unlocked():
    config.model_workdir = str(model)
  assert_refused(
    capfd, config, tmp_path / 'workdir', 'checkpoint', str(model), 'delete'
  )
  assert not (tmp_path / 'workdir').exists()


@pytest.fixture(
  params=[
    pytest.param('64k', id='while tokens are written'),
    pytest.param('448k', marks=pytest.mark.slow, id='before training'),
    pytest.param('1m', marks=pytest.mark.slow, id='while training'),
  ]
)
def small_disk(request, tmp_path):
  """A file system that is full after so many bytes."""
  directory = tmp_path / 'small'
  directory.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', f'size={request.param}', 'tmpfs']
  try:
    done = subprocess.run([*mount, directory], capture_output=True, check=False)
  except OSError as error:
    pytest.skip(f'a small file system cannot be mounted: {error}')
  if done.returncode:
    pytest.skip('a small file system cannot be mounted: only root may do so')
  yield directory
  subprocess.run(['umount', '-l', directory], check=True)


@pytest.mark.slow
def test_full_disk_ends_in_one_line(small_disk):
  workdir = small_disk / 'workdir'
  overrides = (f'--config.{field}={value}' for field, value in SHORT.items())
  result = command(TINY, f'--workdir={workdir}', *overrides)
  assert_one_line(result.stderr, 'workdir must have room', 'is full', 'make')
  assert result.returncode == 2
  written = {path.name: path for path in workdir.rglob('*') if path.is_file()}
  assert not [name for name in written if name.endswith('.part')]
  for name in ('config.json', 'model.json', 'tokenizer.json'):
    if name in written:
      json.loads(written[name].read_text())


@pytest.mark.slow
def test_full_disk_is_noticed_without_being_root(
  capfd, trained, tmp_path, monkeypatch
):
  workdir = tmp_path / 'workdir'
  shutil.copytree(trained, workdir)
  (workdir / 'summary.json').unlink()
  part = whole_file.part_name('metrics.jsonl')
  (workdir / part).symlink_to('/dev/full')
  others = whole_file.part_name
  monkeypatch.setattr(
    whole_file,
    'part_name',
    lambda name: part if name == 'metrics.jsonl' else others(name),
  )
  # This one would be swept as what a killed run left.
  monkeypatch.setattr(whole_file, 'whole_name', lambda name: None)
  assert_refused(capfd, short(), workdir, 'workdir must have room', 'is full')
