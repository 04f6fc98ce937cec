"""A run small enough for tests, in this process or in one that can be killed.

Processes share a compilation cache: what is tested is what they compute, and
compiling the same step six times would only take minutes.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments.pretrain import tiny

_SCRIPT = """
import json, sys
from experiments.pretrain import tiny
from sparse_interp.training import pretrain
config = tiny.get_config()
config.update(json.loads(sys.argv[2]))
pretrain.run(config, sys.argv[1])
"""
_ROOT = pathlib.Path(__file__).parents[2]
OVERRIDES = {
  'model': {'n_layer': 1},
  'data': {'max_bytes': 60_000, 'vocab_size': 300},
}


@pytest.fixture
def config():
  """The configuration that the processes of `start` run."""
  config = tiny.get_config()
  config.update(OVERRIDES)
  return config


@pytest.fixture(scope='session')
def start(tmp_path_factory):
  """Starts a run in a process of its own with one device."""
  apart = tmp_path_factory.mktemp('compiled')
  processes = []

  def start(workdir, shared_cache=True):
    environment = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      # Compiled like all others, for one device.
      'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1'),
      'PYTHONPATH': str(_ROOT),
    }
    if shared_cache:
      environment['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    else:
      environment['JAX_COMPILATION_CACHE_DIR'] = str(apart)
    process = subprocess.Popen(
      [sys.executable, '-c', _SCRIPT, str(workdir), json.dumps(OVERRIDES)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    processes.append(process)
    return process

  yield start
  for process in processes:
    process.kill()
    process.wait()


@pytest.fixture(scope='session')
def undisturbed(start, tmp_path_factory):
  """Workdir of a run that nothing disturbed. Copy it before changing it."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  output, _ = (process := start(workdir)).communicate()
  assert process.returncode == 0, output
  return workdir
