"""SIGINT and SIGTERM, in processes that do nothing else than wait for them."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from sparse_interp.files import interrupts

ROOT = pathlib.Path(__file__).parents[2]
BOTH = pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])

# Computes for hours in one call, and lets other threads run.
_STUCK = """
import hashlib
from sparse_interp.files import interrupts
interrupts.install()
print('ready', flush=True)
hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
"""

# A loop whose every round takes `sys.argv[1]` seconds.
_LOOP = """
import sys, time
from sparse_interp.files import interrupts
with interrupts.handled(), interrupts.deferring() as stop:
  stop.patience = 1.0
  stop.unsaved = True
  words = ['ready']
  while not stop.is_set():
    while words:
      print(words.pop(), flush=True)
    time.sleep(float(sys.argv[1]))
  time.sleep(float(sys.argv[2]))
  print(f'saved after {stop.signal}', flush=True)
"""


def start(script, *arguments):
  process = subprocess.Popen(
    [sys.executable, '-c', script, *arguments],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  return process


def end_of(process):
  """(status, lines on stdout); there is nothing on stderr."""
  output, errors = process.communicate(timeout=30)
  assert not errors
  return process.returncode, output.splitlines()


@BOTH
def test_one_signal_ends_a_call_that_would_never_come_back(name):
  process = start(_STUCK)
  process.send_signal(getattr(signal, name))
  assert end_of(process) == (
    0,
    [f'stopped by {name}; the same command goes on'],
  )


@BOTH
def test_a_loop_saves_first_and_says_so_itself(name):
  process = start(_LOOP, '0.05', '0')
  process.send_signal(getattr(signal, name))
  assert end_of(process) == (0, [f'saved after {name}'])


@pytest.mark.slow
def test_saving_may_take_longer_than_noticing():
  process = start(_LOOP, '0.05', '3')
  process.send_signal(signal.SIGTERM)
  status, lines = end_of(process)
  assert status == 0
  assert 'within 1 s' in lines[0]
  assert 'second signal ends it at once' in lines[0]
  assert lines[1:] == ['saved after SIGTERM']


@BOTH
def test_a_loop_that_does_not_look_up_is_ended(name):
  process = start(_LOOP, '100', '0')
  process.send_signal(getattr(signal, name))
  status, lines = end_of(process)
  assert status == 128 + getattr(signal, name)
  assert len(lines) == 2
  assert f'at once by {name} in a call of over 1.0 s' in lines[1]


@BOTH
@pytest.mark.parametrize('seconds', ['0.05', '100'])
def test_a_second_signal_ends_it_at_once(name, seconds):
  process = start(_LOOP, seconds, '100')
  process.send_signal(signal.SIGINT)
  assert process.stdout.readline().startswith('SIGINT: saves and stops')
  process.send_signal(getattr(signal, name))
  status, lines = end_of(process)
  assert status == 128 + getattr(signal, name)
  assert len(lines) == 1
  assert f'at once by {name} again' in lines[0]


def test_a_signal_sent_twice_by_one_program_counts_once():
  process = start(_LOOP, '0.05', '0.1')
  for _ in range(5):
    process.send_signal(signal.SIGTERM)
    time.sleep(0.01)
  assert end_of(process) == (0, ['saved after SIGTERM'])


def test_nobody_who_reads_the_console_is_no_obstacle():
  process = start(_STUCK)
  process.stdout.close()
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=30) == 0
  assert process.stderr.read() == ''
  process.stderr.close()


def test_a_background_job_of_a_script_listens_to_sigint():
  process = subprocess.Popen(
    ['sh', '-c', f'trap \'\' INT; exec {sys.executable} -c "$0"', _STUCK],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGINT)
  assert end_of(process)[0] == 0


def _handlers():
  return [signal.getsignal(one) for one in interrupts.SIGNALS]


def test_signals_are_given_back():
  before = _handlers()
  threads = threading.active_count()
  with interrupts.handled(), interrupts.deferring() as stop:
    assert all(
      new is not old for new, old in zip(_handlers(), before, strict=True)
    )
    assert not stop.is_set()
  assert _handlers() == before
  assert signal.set_wakeup_fd(-1) == -1
  for _ in range(100):
    if threading.active_count() == threads:
      return
    time.sleep(0.02)
  raise AssertionError('the thread goes on')


def test_handlers_of_the_caller_stay():
  heard = []
  handler = lambda *_: heard.append('mine')  # noqa: E731
  before = signal.signal(signal.SIGINT, handler)
  try:
    with interrupts.handled():
      assert signal.getsignal(signal.SIGINT) is handler
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(0.1)
    assert heard == ['mine']
  finally:
    signal.signal(signal.SIGINT, before)


def test_a_prompt_keeps_its_exception(monkeypatch):
  monkeypatch.setattr(sys, 'ps1', '>>> ', raising=False)
  before = _handlers()

  def run():
    with interrupts.handled(), interrupts.deferring():
      assert _handlers() == before
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(5)

  with pytest.raises(KeyboardInterrupt):
    run()


@pytest.mark.slow
def test_a_script_that_has_notebook_software_is_no_notebook():
  pytest.importorskip('ipykernel.kernelapp')
  with interrupts.handled(), interrupts.deferring() as stop:
    stop.unsaved = True
    os.kill(os.getpid(), signal.SIGTERM)
    while stop.signal is None:
      time.sleep(0.01)


def test_another_thread_leaves_signals_alone():
  before, inside = _handlers(), []

  def work():
    with interrupts.handled(), interrupts.deferring():
      inside.extend(_handlers())

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert inside == before
