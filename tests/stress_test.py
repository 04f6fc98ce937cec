"""The quickstart, interrupted in every way that a machine or a person knows.

Whatever happens, the same command goes on, and ends as if nothing had happened.
Half of the processes run at a time in each of two threads: two cores are busy.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import time

import pytest

from tests.whole_runs import Run, assert_same_end, finish

pytestmark = pytest.mark.long

_KILLS, _SIDE_BY_SIDE = 60, 2


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """Compiled programs that all runs share: these are not what is tested."""
  return tmp_path_factory.mktemp('compiled')


@pytest.fixture(scope='module')
def undisturbed(cache, tmp_path_factory):
  """Workdir of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'w'
  return finish(workdir, cache).workdir


def said(text):
  """Whether a line of a run holds `text`."""
  return lambda run: any(text in line for line in run.lines)


def holds(text):
  """Whether what is known of an unfinished circuit mentions `text`."""

  def reached(run):
    return any(
      text in path.read_text(errors='replace')
      for path in run.workdir.glob('pruning/*/answers.jsonl')
    )

  return reached


# What a run has reached; later ones are not reached by a run that was stopped
# in an earlier one.
PHASES = {
  'importing': lambda run: time.monotonic() - run.began > 0.7,
  'reading': said('reading corpus'),
  'tokenizing': said('tokenizing'),
  'compiling': lambda run: any(run.workdir.glob('pretraining_sample.npy')),
  'training': said('step '),
  'means': said('means of all nodes'),
  'posing': said('full model'),
  'optimising': lambda run: any(run.workdir.glob('pruning/*/gates.npz')),
  'searching': holds('first '),
  'eliminating': holds('loss some'),
  'testing': holds('test '),
  'reporting': lambda run: any(run.workdir.glob('circuits/*/circuit.json')),
}


def assert_quiet(errors):
  assert 'Traceback' not in errors, errors
  assert 'KeyboardInterrupt' not in errors, errors


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_ends_every_phase_in_one_line(
  name, undisturbed, cache, tmp_path
):
  unreached = []
  for phase, reached in PHASES.items():
    run = Run(tmp_path / 'w', cache)
    if not run.wait_for(reached):
      unreached.append(phase)
      run.end()
      break
    run.process.send_signal(getattr(signal, name))
    status, errors = run.end(timeout=60.0)
    assert status == 0, (phase, run.lines, errors)
    assert_quiet(errors)
    stopped = [line for line in run.lines if 'stopped by' in line]
    if stopped:  # some have ended before they heard of it
      assert len(stopped) == 1, (phase, run.lines)
      assert f'stopped by {name}' in run.lines[-1], (phase, run.lines)
      assert 'the same command goes on' in run.lines[-1]
  assert not unreached
  finish(tmp_path / 'w', cache)
  assert_same_end(tmp_path / 'w', undisturbed)


def _kill_again_and_again(seed, kills, undisturbed, cache, directory):
  """Kills runs at random moments, workdir after workdir, until all are done."""
  rng, ends = random.Random(seed), 0
  workdir = directory / f'{ends}'
  while kills:
    run = Run(workdir, cache)
    # Lines tell the phases apart whatever the speed of the machine.
    lines = rng.choice([0, 1, 2, 3, 4, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19])
    wait = rng.uniform(0, 1.5)
    if run.wait_for(lambda run, lines=lines: len(run.lines) >= lines):
      with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(wait)
    if run.process.poll() is None:
      run.process.kill()
      kills -= 1
      _, errors = run.end()
    else:
      status, errors = run.end()
      assert status == 0, (run.lines, errors)
    assert_quiet(errors)
    if run.process.returncode == 0:
      assert_same_end(workdir, undisturbed)
      ends += 1
      workdir = directory / f'{ends}'
  finish(workdir, cache)
  assert_same_end(workdir, undisturbed)
  return ends + 1


def test_killed_at_random_moments_runs_end_with_the_same_bits(
  undisturbed, cache, tmp_path
):
  with concurrent.futures.ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
    futures = [
      pool.submit(
        _kill_again_and_again,
        seed,
        _KILLS // _SIDE_BY_SIDE,
        undisturbed,
        cache,
        tmp_path / f'{seed}',
      )
      for seed in range(_SIDE_BY_SIDE)
    ]
    assert sum(future.result() for future in futures) >= _SIDE_BY_SIDE


def test_two_runs_at_once_are_one_run_and_one_line(
  undisturbed, cache, tmp_path
):
  began, runs = time.monotonic(), [Run(tmp_path / 'w', cache)]
  for offset in (0, 0.3, 1, 2, 4, 8):
    time.sleep(max(0, began + offset - time.monotonic()))
    runs.append(Run(tmp_path / 'w', cache))
  ends = [(run, *run.end()) for run in runs]
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


def test_a_disk_that_fills_stops_it_in_one_line(undisturbed, cache, small_disk):
  kilo = 1024
  workdir, full = small_disk / 'w', []
  for free in (0, 8, 100, 300, 600, 1500):
    _leave(small_disk, free * kilo)
    full.append(_run_on_a_full_disk(workdir, cache))
  # Once trained, what is left to be written is small.
  (small_disk / 'ballast').unlink()
  run = Run(workdir, cache)
  run.wait_for(said('means of all nodes'))
  _leave(small_disk, 0)
  full.append(_end_on_a_full_disk(run))
  for free in (8, 40):
    _leave(small_disk, free * kilo)
    full.append(_run_on_a_full_disk(workdir, cache))
  assert sum(full) >= 6
  (small_disk / 'ballast').unlink()
  finish(workdir, cache)
  assert_same_end(workdir, undisturbed)


def _run_on_a_full_disk(workdir, cache):
  return _end_on_a_full_disk(Run(workdir, cache))


def _end_on_a_full_disk(run):
  """Whether it was full; then there is one line that says so."""
  status, errors = run.end()
  assert_quiet(errors)
  if status == 0:
    return False
  assert status == 2, (run.lines, errors)
  assert re.fullmatch(r'error: .*room.*full.*\n', errors), errors
  return True
