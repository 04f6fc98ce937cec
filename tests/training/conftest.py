"""A run small enough for tests, in this process or in one that can be killed.

Processes share a compilation cache: what is tested is what they compute, and
compiling the same step six times would only take minutes.
"""

import pytest

from experiments.pretrain import tiny
from tests.processes import Starter

OVERRIDES = {
  'model': {'n_layer': 1},
  'data': {'max_bytes': 60_000, 'vocab_size': 300},
}
_ARGUMENTS = [
  '--config=experiments/pretrain/tiny.py',
  *(
    f'--config.{section}.{field}={value}'
    for section, fields in OVERRIDES.items()
    for field, value in fields.items()
  ),
]


@pytest.fixture
def config():
  """The configuration that the processes of `start` run."""
  config = tiny.get_config()
  config.update(OVERRIDES)
  return config


@pytest.fixture(scope='session')
def start(tmp_path_factory):
  """Starts a run in a process of its own with one device."""
  starters = {}

  def start(workdir, shared_cache=True):
    if shared_cache not in starters:
      directory = tmp_path_factory.mktemp('runs')
      own = {'JAX_COMPILATION_CACHE_DIR': str(directory / 'compiled')}
      starters[shared_cache] = Starter(
        directory,
        'sparse_interp.main',
        _ARGUMENTS,
        ['sparse_interp.training.memory', 'sparse_interp.training.pretrain'],
        **({} if shared_cache else own),
      )
    return starters[shared_cache].start(workdir)

  yield start
  for starter in starters.values():
    starter.close()


@pytest.fixture(scope='session')
def undisturbed(start, tmp_path_factory):
  """Workdir of a run that nothing disturbed. Copy it before changing it."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  status, errors = start(workdir).end()
  assert status == 0, errors
  return workdir
