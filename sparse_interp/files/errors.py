"""Errors that a user can cause: one line on stderr, exit status 2.

Throughout the package these are ValueErrors, whose message names the field,
the constraint, the value and the remedy, and the operating system's OSErrors.
"""

import contextlib
import errno
import os
import re
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

# What other libraries write into exceptions of their own when a disk is full;
# the second is numpy's.
_DISK_FULL = re.compile(
  rf'{re.escape(os.strerror(errno.ENOSPC))}|\d+ requested and \d+ written'
)
# Asynchronous writes that end after the one that failed find no event loop.
_ECHO = re.compile(f'{_DISK_FULL.pattern}|Event loop is closed')


def keep_threads_quiet() -> None:
  """Keeps what fails in the background from being reported more than once.

  Checkpoints and TensorBoard files are written by threads. When their disk is
  full, each of them prints a traceback, and then the main thread, which waits
  for them, raises the same error.
  """
  report_unraisable, report_thread = sys.unraisablehook, threading.excepthook

  def is_echo(error: BaseException | None) -> bool:
    return bool(_ECHO.search(str(error)))

  def unraisable(details: Any) -> None:
    if not is_echo(details.exc_value):
      report_unraisable(details)

  def thread(details: Any) -> None:
    if not is_echo(details.exc_value):
      report_thread(details)

  sys.unraisablehook, threading.excepthook = unraisable, thread


@contextlib.contextmanager
def in_one_line(*kinds: type[Exception], debug: bool = False) -> Iterator[None]:
  """Ends the program in one line where its user can mend what went wrong.

  Args:
    *kinds: Exceptions that count as such beside ValueError and OSError.
    debug: Let all of them pass, with their traceback.

  Raises:
    SystemExit: With status 2, after the line was written to stderr.
  """
  try:
    yield
  except Exception as error:
    by_user = isinstance(error, (ValueError, OSError, *kinds))
    if debug or not (by_user or _DISK_FULL.search(str(error))):
      raise
    sys.stdout.flush()
    print(f'error: {_describe(error)}', file=sys.stderr)
    sys.exit(2)


def _describe(error: Exception) -> str:
  text = str(error)
  if full := _DISK_FULL.search(text):
    where = getattr(error, 'filename', None) or 'its disk'
    return (
      f'workdir must have room for what the run writes, but {where} is full '
      f'({full[0]}); make room or choose another --workdir, and run again.'
    )
  if isinstance(error, OSError) and error.filename:
    return (
      f'{error.filename}: {error.strerror}; correct the path or its '
      'permissions, and run again.'
    )
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if len(lines) == 1:
    return lines[0]
  # Only other libraries write several lines: the gist, and where to read on.
  if any(line.startswith('Traceback') for line in lines):
    lines = [lines[0], lines[-1]]
  gist = textwrap.shorten(' '.join(lines) or repr(error), 300, placeholder=' …')
  return f'{gist} (--debug shows all of it.)'
