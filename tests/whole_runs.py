"""Whole runs of the quickstart, and what two of them have in common."""

import fcntl
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from experiments import quickstart
from sparse_interp import main
from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.files import metric_rows
from sparse_interp.sparsity import statistics
from sparse_interp.training import checkpoints
from tests.processes import Starter

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


def copy_of_finished(
  tmp_path_factory: pytest.TempPathFactory, to: pathlib.Path
) -> None:
  """Copies the workdir of a finished run, made once for all tests.

  Args:
    tmp_path_factory: of any test.
    to: the copy.
  """
  base = tmp_path_factory.getbasetemp()
  # Beside the directories of all processes of the tests, if there are several.
  base = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
  with (base / 'quickstart.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (base / 'quickstart').exists():
      main.run(quickstart.get_config('tiny'), str(base / 'quickstart.part'))
      (base / 'quickstart.part').rename(base / 'quickstart')
  shutil.copytree(base / 'quickstart', to)


def starter(directory: pathlib.Path) -> Starter:
  """Starts the quickstart, with one layer: most of the time goes into tracing.

  Args:
    directory: for what processes write, and what they have compiled.
  """
  return Starter(
    directory,
    'sparse_interp.main',
    ['--config=experiments/quickstart.py:tiny', '--config.model.n_layer=1'],
    # Some of it is imported in the middle of the run.
    [
      'sparse_interp.runs.quickstart',
      'sparse_interp.training.memory',
      'scipy.optimize',
      'scipy.stats',
    ],
    JAX_COMPILATION_CACHE_DIR=str(directory / 'compiled'),
  )


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
