"""Who comes second is told who was first; who dies holds nothing."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from sparse_interp.files import lock

ROOT = pathlib.Path(__file__).parents[2]
_HOLD = """
import sys, time
from sparse_interp.files import lock
with lock.held(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def start(directory):
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(directory)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  return process


def test_the_second_is_told_who_is_first_until_that_one_is_killed(tmp_path):
  process = start(tmp_path)
  try:
    with pytest.raises(ValueError) as error, lock.held(tmp_path):
      raise AssertionError
    message = str(error.value)
    assert f'process {process.pid} on {os.uname().nodename} since 2' in message
    assert 'lock.held' in message  # its command
    assert str(tmp_path) in message
    assert '\n' not in message
  finally:
    process.kill()
    process.wait()
  assert lock.is_there(tmp_path)
  with lock.held(tmp_path) as locked:
    assert locked
    found = json.loads((tmp_path / lock.NAME).read_text())
    assert found['process'] == os.getpid()
  assert not list(tmp_path.iterdir())


def test_another_thread_or_run_of_the_same_process_is_second_too(tmp_path):
  with lock.held(tmp_path):
    with pytest.raises(ValueError, match=f'process {os.getpid()} on'):
      with lock.held(tmp_path):
        raise AssertionError
    assert lock.is_there(tmp_path)


@pytest.mark.parametrize('content', ['', '{', '[]', '{"process": "x"}', '1'])
def test_whatever_the_file_says_it_is_one_line(tmp_path, content):
  with lock.held(tmp_path):
    (tmp_path / lock.NAME).write_text(content)
    with pytest.raises(ValueError, match='another process is writing to'):
      with lock.held(tmp_path):
        raise AssertionError


def test_a_file_that_goes_while_it_is_locked_is_no_lock(tmp_path, monkeypatch):
  flock = lock.fcntl.flock
  taken = []

  def goes(file, how):
    flock(file, how)
    if not taken:  # as where the holder ends between open and lock
      (tmp_path / lock.NAME).unlink()
    taken.append(file)

  monkeypatch.setattr(lock.fcntl, 'flock', goes)
  with lock.held(tmp_path):
    assert len(taken) == 2
    assert lock.is_there(tmp_path)


def test_a_directory_that_goes_meanwhile_is_made_again(tmp_path):
  with lock.held(tmp_path / 'a' / 'b'):
    assert lock.is_there(tmp_path / 'a' / 'b')


def test_a_file_system_without_locks_says_so(tmp_path, monkeypatch):
  def none(file, how):
    raise OSError('no locks')

  monkeypatch.setattr(lock.fcntl, 'flock', none)
  with lock.held(tmp_path) as locked:
    assert not locked
  assert not list(tmp_path.iterdir())


def test_the_lock_is_not_made_through_a_link(tmp_path):
  (tmp_path / lock.NAME).symlink_to(tmp_path / 'precious')
  with pytest.raises(OSError), lock.held(tmp_path):
    raise AssertionError
  assert not (tmp_path / 'precious').exists()
