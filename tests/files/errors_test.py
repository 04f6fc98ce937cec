"""What a user can mend ends in one line; what is our fault keeps its trace."""

import errno
import os
import sys
import threading

import pytest

from sparse_interp.files import errors

FULL = os.strerror(errno.ENOSPC)


def line_of(error, capsys, *kinds):
  """Raises an error where users see it; returns what they see."""
  with pytest.raises(SystemExit) as info, errors.in_one_line(*kinds):
    raise error
  assert info.value.code == 2
  captured = capsys.readouterr()
  assert not captured.out
  assert captured.err.startswith('error: ')
  assert captured.err.count('\n') == 1
  return captured.err


def test_value_error_of_one_line_is_shown_as_it_stands(capsys):
  text = 'density must be in (0, 1], got 2; choose e.g. 1/16.'
  assert line_of(ValueError(text), capsys) == f'error: {text}\n'


def test_long_message_is_cut_and_says_how_to_see_the_rest(capsys):
  line = line_of(ValueError('shapes\n\n  differ:\n' + 'x ' * 999), capsys)
  assert line.startswith('error: shapes differ: x x')
  assert '--debug' in line
  assert len(line) < 400


def test_traceback_inside_a_message_is_left_out(capsys):
  text = (
    'Error in file:\n\nTraceback (most recent call last):\n  f()\nE: no such'
  )
  assert 'Error in file: E: no such' in line_of(ValueError(text), capsys)


def test_message_without_text_names_the_exception(capsys):
  assert 'ValueError()' in line_of(ValueError(), capsys)


def test_path_that_cannot_be_used_is_named(capsys):
  error = PermissionError(errno.EACCES, 'Permission denied', '/a/b')
  line = line_of(error, capsys)
  assert line.startswith('error: /a/b: Permission denied;')


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ENOSPC, FULL, 'runs/x'),
    RuntimeError(f'UNKNOWN: write failed\n[OS error 28: {FULL}]\nsource.cc:12'),
    OSError('88714 requested and 26560 written'),
  ],
)
def test_full_disk_is_recognised_in_any_exception(error, capsys):
  line = line_of(error, capsys)
  assert line.startswith('error: workdir must have room')
  assert 'choose another --workdir' in line


def test_further_kinds_can_be_named(capsys):
  assert 'no such' in line_of(KeyError('no such'), capsys, KeyError)


@pytest.mark.parametrize('error', [KeyError('x'), RuntimeError('defect')])
def test_defects_keep_their_traceback(error, capsys):
  with pytest.raises(type(error)), errors.in_one_line():
    raise error
  assert not capsys.readouterr().err


def test_debug_lets_every_error_pass():
  with pytest.raises(ValueError), errors.in_one_line(debug=True):
    raise ValueError('wrong')


@pytest.mark.parametrize(
  ('message', 'reported'),
  [(f'[Errno 28] {FULL}', False), ('Event loop is closed', False), ('x', True)],
)
def test_threads_report_only_what_the_main_thread_will_not(
  capsys, monkeypatch, message, reported
):
  for module, hook in ((sys, 'unraisablehook'), (threading, 'excepthook')):
    monkeypatch.setattr(module, hook, getattr(module, f'__{hook}__'))
  errors.keep_threads_quiet()

  def fail():
    raise RuntimeError(message)

  thread = threading.Thread(target=fail)
  thread.start()
  thread.join()
  assert (message in capsys.readouterr().err) == reported

  class Failing:
    def __del__(self):
      fail()

  Failing()
  assert (message in capsys.readouterr().err) == reported
