"""What SIGINT and SIGTERM do to a run: both end it, in one line, resumable.

All that runs leave on disk stands a kill at any moment, so that a process may
end wherever it is; only what is not on disk yet has to be waited for. A thread
waits for signals, since Python's own handlers do not run while the main thread
is inside one long call, such as a compilation:

  nothing unsaved  the first signal ends the process at once, status 0
  something is     the first signal asks the loop that holds it to save and end,
                   status 0; a second one, or a call that does not come back in
                   PATIENCE seconds, ends the process, status 128 + signal

Status 0 says that nothing was lost. No exception is ever raised in the middle
of anything, so that there is no traceback, in no thread.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Seconds that a loop has for coming back from the call it is in. Schedulers
# mostly kill after 30.
PATIENCE = 20.0

# Some programs, as timeout does, send a signal to a process and to its group:
# what follows within so many seconds is the same signal. Most loops have ended
# by then, and have said so; what takes longer is told that it was heard.
_ECHO = 0.3


class Stop:
  """Whether a loop shall stop, and whether it has something to save first.

  Attributes:
    unsaved: set by the loop while it holds what is not on disk.
    patience: seconds that it has for noticing the signal, None for no limit;
      once it has, it may take as long as it wants to save.
    signal: name of the signal that has asked for it, None before that.
  """

  def __init__(self):
    """Nobody has asked for anything."""
    self.unsaved = False
    self.patience: float | None = PATIENCE
    self.signal: str | None = None
    self._noticed = threading.Event()

  def is_set(self) -> bool:
    """Whether to stop. Who asks has noticed, and is waited for from then on."""
    if self.signal is not None:
      self._noticed.set()
    return self._noticed.is_set()

  def was_noticed(self) -> bool:
    """Whether the loop knows that it shall stop."""
    return self._noticed.is_set()


class _GivenBackError(Exception):
  """There is nothing to wait for any more."""


class _Watcher:
  """Handlers of signals, and the thread that acts on them."""

  def __init__(self, signals: Sequence[signal.Signals]):
    """Takes the signals over."""
    self.stop = Stop()
    self._read, self._write = os.pipe()
    os.set_blocking(self._write, False)
    # The interpreter writes numbers of signals into the pipe, wherever it is;
    # it does so for those that have a handler.
    self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
    self._before = {one: signal.signal(one, lambda *_: None) for one in signals}
    threading.Thread(target=self._run, name='signals', daemon=True).start()

  def end(self) -> None:
    """Gives them back."""
    for one, before in self._before.items():
      signal.signal(one, before)
    signal.set_wakeup_fd(self._wakeup)
    os.close(self._write)  # the thread reads the end of the pipe

  def _run(self) -> None:
    with contextlib.suppress(_GivenBackError):
      self._watch()

  def _watch(self) -> None:
    """Waits for the first signal, and then for the loop that shall stop."""
    first, stop = self._next(), self.stop
    if not stop.unsaved:
      _end(0, f'stopped by {first.name}; the same command goes on')
    stop.signal = first.name
    while self._next(_ECHO):
      pass
    limit = '' if stop.patience is None else f' within {stop.patience:g} s'
    _say(
      f'{first.name}: saves and stops{limit} after the step it is in; a second '
      'signal ends it at once'
    )
    second = self._next(stop.patience)
    if not second and stop.was_noticed():
      second = self._next()
    why = 'again' if second else f'in a call of over {stop.patience} s'
    last = second or first
    assert last is not None  # nobody waits for the first with a limit
    _end(
      128 + last,
      f'stopped at once by {last.name} {why}; the same command goes on from '
      'what was saved',
    )

  def _next(self, limit: float | None = None) -> signal.Signals | None:
    """The next signal; None after `limit` seconds, or at the end."""
    while _ready(self._read, select.POLLIN, limit):
      found = os.read(self._read, 1)
      if not found:
        os.close(self._read)
        raise _GivenBackError
      if found[0] in self._before:  # others may have handlers, too
        return signal.Signals(found[0])
    return None


_watcher: _Watcher | None = None


def install() -> None:
  """Handles both signals from now on: for the program, before it does anything.

  SIGINT also where a script has started the program in the background, which
  by convention ignores it: nothing is lost by listening.
  """
  global _watcher
  if _watcher is None and _is_main_thread():
    _watcher = _Watcher(SIGNALS)


@contextlib.contextmanager
def handled() -> Iterator[None]:
  """Handles meanwhile those of the signals that nobody else does.

  Notebooks and prompts, where SIGINT is an exception that is useful, handlers
  of the caller's own, and threads besides the main one are left alone.
  """
  global _watcher
  if _watcher is not None or not _is_main_thread() or _is_interactive():
    yield
    return
  default = (signal.SIG_DFL, signal.default_int_handler)
  free = [one for one in SIGNALS if signal.getsignal(one) in default]
  _watcher = _Watcher(free)
  try:
    yield
  finally:
    _watcher.end()
    _watcher = None


@contextlib.contextmanager
def deferring() -> Iterator[Stop]:
  """Yields what a signal sets, instead of ending, while that says `unsaved`.

  It is never set where signals are not handled here.
  """
  stop = Stop()
  if _watcher is not None:
    _watcher.stop = stop
  try:
    yield stop
  finally:
    # Whoever was asked to stop will do so, and is waited for.
    if _watcher is not None and not stop.is_set():
      _watcher.stop = Stop()


def _is_main_thread() -> bool:
  return threading.current_thread() is threading.main_thread()


def _is_interactive() -> bool:
  """Whether this is a prompt or a notebook, not a script that only imports."""
  ipython = sys.modules.get('IPython')
  in_shell = ipython is not None and ipython.get_ipython() is not None
  return hasattr(sys, 'ps1') or in_shell


def _ready(descriptor: int, event: int, limit: float | None) -> bool:
  """Whether it can be read or written within `limit` seconds."""
  poll = select.poll()
  poll.register(descriptor, event)
  return bool(poll.poll(None if limit is None else limit * 1000))


def _say(line: str) -> None:
  """Writes to the console, unless nobody reads there."""
  with contextlib.suppress(OSError, AttributeError, ValueError):
    stdout = sys.__stdout__.fileno()
    if _ready(stdout, select.POLLOUT, 0.1):
      os.write(stdout, f'{line}\n'.encode())


def _end(status: int, line: str) -> None:
  """Ends the process without another instruction of any other thread."""
  _say(line)
  os._exit(status)
