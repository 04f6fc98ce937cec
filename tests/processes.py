"""Command lines in processes of their own, for tests that do them harm."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
_PAUSE = 0.005  # between two looks at a process, in seconds


class Starter:
  """Starts runs of one command; what one has compiled others may use."""

  def __init__(
    self,
    directory: pathlib.Path,
    module: str,
    arguments: Sequence[str] = (),
    imported: Sequence[str] = (),
    **environment: str,
  ):
    """Starts what runs are forked from.

    Args:
      directory: for what processes write.
      module: with the command line, `cli`, which `python -m` runs, too.
      arguments: of the command line, all but the workdir.
      imported: further modules that a run imports.
      **environment: variables that they see beside those of this process.
    """
    self._directory = directory
    self._module, self._arguments = module, arguments
    self._environment = {
      **os.environ,
      # Compiled like all others, for one device.
      'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      **environment,
    }
    self._count, self._runs = itertools.count(), []
    self._parent = self._popen(
      *('-m', 'tests.forked_runs', module, *imported),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
    )

  def _popen(self, *arguments: str, **files: Any) -> subprocess.Popen:
    command = [sys.executable, *arguments]
    return subprocess.Popen(
      command, cwd=ROOT, env=self._environment, text=True, **files
    )

  def close(self) -> None:
    """Ends all that was started."""
    for run in self._runs:
      run.process.kill()
    self._parent.communicate()

  def start(self, workdir: pathlib.Path, imports: bool = False) -> 'Run':
    """Starts the command.

    Args:
      workdir: of the run.
      imports: begin with the imports, as users do, and not behind them.
    """
    file = self._directory / f'{next(self._count)}'
    arguments = [*self._arguments, f'--workdir={workdir}']
    if imports:
      with open(f'{file}.out', 'w') as out, open(f'{file}.err', 'w') as err:
        process = self._popen(
          *('-m', self._module, *arguments), stdout=out, stderr=err
        )
    else:
      process = Fork(self._ask, [arguments, str(file)])
    self._runs.append(Run(workdir, file, process))
    return self._runs[-1]

  def _ask(self, question: Any) -> Any:
    """See `forked_runs`."""
    self._parent.stdin.write(json.dumps(question) + '\n')
    self._parent.stdin.flush()
    return json.loads(self._parent.stdout.readline())

  def finish(self, workdir: pathlib.Path) -> 'Run':
    """A run that nothing disturbs, to its end."""
    run = self.start(workdir)
    status, errors = run.end()
    assert status == 0, (run.lines[-3:], errors)
    return run


class Fork:
  """What is needed of `subprocess.Popen` here, for a child of a child."""

  def __init__(self, ask: Callable[[Any], Any], asked: Any):
    """Starts it.

    Args:
      ask: asks what it is forked from.
      asked: what it shall do.
    """
    self._ask, self.pid = ask, ask(asked)
    self.returncode: int | None = None

  def poll(self) -> int | None:
    """Its status; None while it runs."""
    if self.returncode is None:
      self.returncode = self._ask(self.pid)
    return self.returncode

  def wait(self, timeout: float) -> int:
    """Its status once it has ended.

    Raises:
      subprocess.TimeoutExpired: it has not.
    """
    limit = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() > limit:
        raise subprocess.TimeoutExpired('fork', timeout)
      time.sleep(_PAUSE)
    return self.returncode

  def send_signal(self, signum: int) -> None:
    """Sends it a signal, unless it is known to have ended."""
    if self.poll() is None:
      os.kill(self.pid, signum)

  def kill(self) -> None:
    """Sends it SIGKILL."""
    self.send_signal(signal.SIGKILL)


class Run:
  """One process, and the lines that it has written so far."""

  def __init__(
    self,
    workdir: pathlib.Path,
    file: pathlib.Path,
    process: subprocess.Popen | Fork,
  ):
    """Looks at one that was started.

    Args:
      workdir: of the run.
      file: its name, with .out and .err behind it, is that of what it writes.
      process: it.
    """
    self.workdir, self._file, self.process = workdir, file, process

  @property
  def lines(self) -> list[str]:
    """Whole lines of what it has written."""
    return self._read('out').split('\n')[:-1]

  def _read(self, suffix: str) -> str:
    path = pathlib.Path(f'{self._file}.{suffix}')
    return path.read_text() if path.exists() else ''

  def wait_for(self, reached: Callable[['Run'], bool] | str) -> bool:
    """Waits until `reached(self)`, or until a line holds it.

    Returns:
      False if the process ended before.
    """
    while not self.has(reached):
      if self.process.poll() is not None:
        return self.has(reached)
      time.sleep(_PAUSE)
    return True

  def has(self, reached: Callable[['Run'], bool] | str) -> bool:
    """Whether it has come so far; see `wait_for`."""
    if isinstance(reached, str):
      return any(reached in line for line in self.lines)
    return reached(self)

  def end(self, timeout: float = 900.0) -> tuple[int, str]:
    """(status, stderr) of a process that ends of itself."""
    return self.process.wait(timeout), self._read('err')
