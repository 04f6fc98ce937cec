"""Several processes of one run: one of them leads, all end alike."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from tests.training.conftest import OVERRIDES

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
_SCRIPT = """
import json, sys
import jax
port, process, workdir, overrides = sys.argv[1:]
jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(process))
from experiments.pretrain import tiny
from sparse_interp.files import errors
from sparse_interp.training import pretrain
config = tiny.get_config()
config.update(json.loads(overrides))
with errors.in_one_line():
  pretrain.run(config, workdir)
"""


def run_two(workdir):
  """(exit status, output) of two processes of one run."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1'),
    'PYTHONPATH': str(ROOT),
  }
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, '-c', _SCRIPT, str(port), str(process)),
        *(str(workdir), json.dumps(OVERRIDES)),
      ],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for process in range(2)
  ]
  outputs = [process.communicate()[0] for process in processes]
  return [(p.returncode, o) for p, o in zip(processes, outputs, strict=True)]


def test_two_processes_share_a_workdir_that_one_of_them_holds(tmp_path):
  for status, output in run_two(tmp_path / 'w'):
    assert status == 0, output
  names = json.loads((tmp_path / 'w' / 'manifest.json').read_text())['names']
  listed = {name.split('/')[0] for name in names} | {'manifest.json'}
  assert {path.name for path in (tmp_path / 'w').iterdir()} == listed
  (status, first), (_, second) = run_two(tmp_path / 'w')
  assert status == 0
  assert 'done already' in first
  assert 'done already' not in second


def test_what_refuses_one_refuses_all_with_its_words(tmp_path):
  (tmp_path / 'thesis.txt').touch()
  for status, output in run_two(tmp_path):
    assert status == 2, output
    assert 'with thesis.txt, which no run' in output
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']
