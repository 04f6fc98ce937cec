"""The quickstart, interrupted in every way that a machine or a person knows.

Whatever happens, the same command goes on, and ends as if nothing had happened.
"""

import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import time

import pytest

from tests.whole_runs import assert_same_end, starter

pytestmark = pytest.mark.slow

_CHAINS, _SECONDS = 5, 1.0


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """What starts runs; compiled programs are shared, since nobody tests them."""
  runs = starter(tmp_path_factory.mktemp('runs'))
  yield runs
  runs.close()


@pytest.fixture(scope='module')
def undisturbed(runs, tmp_path_factory):
  """Workdir of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'w'
  return runs.finish(workdir).workdir


def holds(text):
  """Whether what is known of an unfinished circuit mentions `text`."""

  def reached(run):
    return any(
      text in path.read_text(errors='replace')
      for path in run.workdir.glob('pruning/*/answers.jsonl')
    )

  return reached


def handles_signals(run):
  """Whether a process has a handler, as the kernel sees it."""
  status = pathlib.Path(f'/proc/{run.process.pid}/status').read_text()
  caught = int(status.split('SigCgt:')[1].split()[0], 16)
  return bool(caught >> (signal.SIGTERM - 1) & 1)


# What a run has reached; later ones are not reached by a run that was stopped
# in an earlier one.
PHASES = {
  'importing': handles_signals,
  'reading': 'reading corpus',
  'tokenizing': 'tokenizing',
  'compiling': lambda run: any(run.workdir.glob('pretraining_sample.npy')),
  'training': 'step ',
  'going on': 'step 30/',  # behind checkpoints, from which the next goes on
  'means': 'means of all nodes',
  'posing': 'full model',
  'optimising': lambda run: any(run.workdir.glob('pruning/*/gates.npz')),
  'searching': holds('first '),
  'eliminating': holds('loss all'),
  'testing': holds('test '),
  'reporting': lambda run: any(run.workdir.glob('circuits/*/circuit.json')),
}

_KILLED_IN = {'claiming': lambda run: True, **PHASES}


def assert_quiet(errors):
  assert 'Traceback' not in errors, errors
  assert 'KeyboardInterrupt' not in errors, errors


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_ends_every_phase_in_one_line(
  name, undisturbed, runs, tmp_path
):
  workdir = tmp_path / 'w'
  for phase, reached in PHASES.items():
    run = runs.start(workdir, imports=phase == 'importing')
    assert run.wait_for(reached), (phase, run.lines, run.end())
    run.process.send_signal(getattr(signal, name))
    status, errors = run.end(timeout=60.0)
    assert status == 0, (phase, run.lines, errors)
    assert_quiet(errors)
    stopped = [line for line in run.lines if 'stopped by' in line]
    if stopped:  # some have ended before they heard of it
      assert len(stopped) == 1, (phase, run.lines)
      assert f'stopped by {name}' in run.lines[-1], (phase, run.lines)
      assert 'the same command goes on' in run.lines[-1]
  runs.finish(workdir)
  assert_same_end(workdir, undisturbed)


@pytest.mark.parametrize('chain', range(_CHAINS))
def test_killed_at_random_moments_runs_end_with_the_same_bits(
  chain, undisturbed, runs, tmp_path
):
  """In all chains together, as many kills in each phase, some in a row."""
  rng = random.Random(0)
  drawn = [*_KILLED_IN] * _CHAINS
  rng.shuffle(drawn)
  left = sorted(drawn[chain::_CHAINS], key=[*_KILLED_IN].index)
  rng, ends, kills = random.Random(chain), 0, 0
  while left:
    workdir = tmp_path / f'{ends}'
    run = runs.start(workdir, imports=left[0] == 'importing')
    if run.wait_for(_KILLED_IN[left[0]]):
      with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(rng.uniform(0, _SECONDS))
    run.process.kill()
    status, errors = run.end()
    assert_quiet(errors)
    if status == -signal.SIGKILL:
      kills += 1
      del left[0]
    else:
      # It was at its end before: the next begins anew.
      assert status == 0, (run.lines, errors)
      assert_same_end(workdir, undisturbed)
      ends += 1
      assert ends < len(_KILLED_IN), left
  assert kills == len(_KILLED_IN)
  runs.finish(tmp_path / f'{ends}')
  assert_same_end(tmp_path / f'{ends}', undisturbed)


def test_two_runs_at_once_are_one_run_and_one_line(undisturbed, runs, tmp_path):
  began, started = time.monotonic(), [runs.start(tmp_path / 'w')]
  for offset in (0, 0.3, 1):
    time.sleep(max(0, began + offset - time.monotonic()))
    started.append(runs.start(tmp_path / 'w'))
  # Later in time would be after the end where a machine is fast.
  for phase in ('training', 'posing', 'searching'):
    while not any(run.has(PHASES[phase]) for run in started):
      assert any(run.process.poll() is None for run in started)
      time.sleep(0.01)
    started.append(runs.start(tmp_path / 'w'))
  ends = [(run, *run.end()) for run in started]
  assert sorted(status for _, status, _ in ends) == [0] + [2] * 6
  for _, status, errors in ends:
    assert_quiet(errors)
    if status == 2:
      assert errors.startswith('error: ')
      assert errors.count('\n') == 1
  assert_same_end(tmp_path / 'w', undisturbed)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of a few megabytes, where this user may make one."""
  directory = tmp_path / 'disk'
  directory.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', str(directory)]
  if os.getuid() or subprocess.run(mount, check=False).returncode:
    pytest.skip('a small disk takes a user who may mount one')
  yield directory
  subprocess.run(['umount', str(directory)], check=True)


def _leave(disk: pathlib.Path, size: int) -> None:
  """Fills a disk up to `size` bytes that stay free."""
  ballast = disk / 'ballast'
  ballast.unlink(missing_ok=True)
  found = os.statvfs(disk)
  with ballast.open('wb') as file:
    file.write(bytes(max(0, found.f_bavail * found.f_frsize - size)))


def test_a_disk_that_fills_stops_it_in_one_line(undisturbed, runs, small_disk):
  kilo = 1024
  workdir, full = small_disk / 'w', []
  for free in (0, 8, 100, 300, 600, 1500):
    _leave(small_disk, free * kilo)
    full.append(_end_on_a_full_disk(runs.start(workdir)))
  # Once trained, what is left to be written is small.
  (small_disk / 'ballast').unlink()
  run = runs.start(workdir)
  run.wait_for('means of all nodes')
  _leave(small_disk, 0)
  full.append(_end_on_a_full_disk(run))
  for free in (8, 40):
    _leave(small_disk, free * kilo)
    full.append(_end_on_a_full_disk(runs.start(workdir)))
  assert sum(full) >= 6
  (small_disk / 'ballast').unlink()
  runs.finish(workdir)
  assert_same_end(workdir, undisturbed)


def _end_on_a_full_disk(run):
  """Whether it was full; then there is one line that says so."""
  status, errors = run.end()
  assert_quiet(errors)
  if status == 0:
    return False
  assert status == 2, (run.lines, errors)
  assert re.fullmatch(r'error: .*room.*full.*\n', errors), errors
  return True
