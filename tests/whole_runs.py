"""The quickstart in processes of its own, for tests that do it harm."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.files import metric_rows
from sparse_interp.sparsity import statistics
from sparse_interp.training import checkpoints

ROOT = pathlib.Path(__file__).parents[1]
COMMAND = (
  sys.executable,
  '-m',
  'sparse_interp.main',
  '--config=experiments/quickstart.py:tiny',
)

# What depends on the machine and the moment, not on the run.
_OF_THE_MOMENT = (
  'wall_seconds',
  'prune_seconds',
  'tokens_per_second',
  'report_sha256',  # of a page that shows the others
)
# Compared by what they say, or full of times.
_BY_CONTENT = ('checkpoints', 'tensorboard', 'circuits')
_FILES_BY_CONTENT = ('summary.json', 'metrics.jsonl', 'report.html')


class Run:
  """One process of the quickstart, and the lines that it has written so far."""

  def __init__(self, workdir: pathlib.Path, cache: pathlib.Path):
    """Starts it.

    Args:
      workdir: of the run.
      cache: of compiled programs, shared by all runs.
    """
    flags = os.environ.get('XLA_FLAGS', '').replace('count=8', 'count=1')
    self.workdir, self.lines = workdir, []
    self.began = time.monotonic()
    self.process = subprocess.Popen(
      [*COMMAND, f'--workdir={workdir}'],
      cwd=ROOT,
      env=os.environ
      | {
        'XLA_FLAGS': flags,
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    for line in self.process.stdout:
      self.lines.append(line.rstrip('\n'))

  def wait_for(self, reached) -> bool:
    """Waits until `reached(self)`; False if the process ended before."""
    while not reached(self):
      if self.process.poll() is not None:
        return False
      time.sleep(0.01)
    return True

  def end(self, timeout: float = 900.0) -> tuple[int, str]:
    """(status, stderr) of a process that ends of itself."""
    self.process.wait(timeout)
    self._reader.join()
    errors = self.process.stderr.read()
    self.process.stderr.close()
    self.process.stdout.close()
    return self.process.returncode, errors


def finish(workdir: pathlib.Path, cache: pathlib.Path) -> Run:
  """A run that nothing disturbs, to its end."""
  run = Run(workdir, cache)
  status, errors = run.end()
  assert status == 0, (run.lines[-3:], errors)
  return run


def assert_same_end(workdir: pathlib.Path, other: pathlib.Path) -> None:
  """Compares all that two finished runs have left, bit by bit."""
  assert _names(workdir) == _names(other)
  for name in _names(workdir):
    top = pathlib.PurePath(name).parts[0]
    if top not in _BY_CONTENT and name not in _FILES_BY_CONTENT:
      ours, theirs = ((d / name).read_bytes() for d in (workdir, other))
      assert ours == theirs, name
  _assert_same_arrays(
    *(
      statistics.named_tensors(checkpoints.load_params(one))
      for one in (workdir, other)
    )
  )
  for read in (_rows, _summary, _circuits):
    assert read(workdir) == read(other)


def _names(workdir):
  """Every file but those that are named by hosts, times or hashes."""
  found = {'checkpoints': sorted(os.listdir(workdir / 'checkpoints'))}
  for path in workdir.rglob('*'):
    name = path.relative_to(workdir)
    if path.is_file() and name.parts[0] not in ('checkpoints', 'tensorboard'):
      found[name.as_posix()] = None
  steps = found.pop('checkpoints')
  return sorted(found) + [f'checkpoints/{step}' for step in steps]


def _assert_same_arrays(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name, tensor in ours.items():
    bits = [np.asarray(t).view(np.uint32) for t in (tensor, theirs[name])]
    np.testing.assert_array_equal(*bits, err_msg=name)


def _without_the_moment(value):
  if isinstance(value, dict):
    return {
      k: _without_the_moment(v)
      for k, v in value.items()
      if k not in _OF_THE_MOMENT and k != 'sha256'
    }
  if isinstance(value, list):
    return [_without_the_moment(entry) for entry in value]
  return value


def _rows(workdir):
  return _without_the_moment(metric_rows.read(workdir / 'metrics.jsonl'))


def _summary(workdir):
  found = json.loads((workdir / 'summary.json').read_text())
  return _without_the_moment(found)


def _circuits(workdir):
  found = {}
  for path in sorted((workdir / 'circuits').iterdir()):
    circuit_lib.load(path)  # whole
    stored = json.loads((path / 'circuit.json').read_text())
    found[path.name] = (
      _without_the_moment(stored),
      (path / 'circuit.npz').read_bytes(),
    )
  return found
