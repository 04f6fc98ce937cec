"""Runs without their imports: each is forked from a process that has them.

    python -m tests.forked_runs sparse_interp.main scipy.stats

imports the modules, of which the first has a command line, `cli(arguments)`.
Then a line of JSON on stdin is answered by one on stdout: [arguments, file]
begins that command line, which writes to file.out and file.err, and is answered
by its process id; a process id is answered by the status it has ended with,
null while it runs. Of a run that lives for five seconds the imports take most,
and they are the same each time.
"""

import importlib
import json
import os
import sys
import threading

from sparse_interp.files import quiet


def main(*names: str) -> None:
  """Answers until stdin ends; in a fork, returns when its run is over."""
  quiet.everywhere()  # before jax is imported, as the command does
  modules = [importlib.import_module(name) for name in names]
  # Forks would have neither threads nor devices of their parent.
  assert threading.active_count() == 1, threading.enumerate()
  for line in sys.stdin:
    asked = json.loads(line)
    if isinstance(asked, int):
      pid, status = os.waitpid(asked, os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
      answer = os.fork()
      if not answer:
        arguments, file = asked
        _open_anew(file)
        modules[0].cli(arguments)
        return
    print(json.dumps(answer), flush=True)


def _open_anew(file: str) -> None:
  """Gives a fork files of its own in place of the pipes to its parent."""
  flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
  for descriptor, name, flag in (
    (0, os.devnull, os.O_RDONLY),
    (1, f'{file}.out', flags),
    (2, f'{file}.err', flags),
  ):
    opened = os.open(name, flag, 0o644)
    os.dup2(opened, descriptor)
    os.close(opened)


if __name__ == '__main__':
  main(*sys.argv[1:])
