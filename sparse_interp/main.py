"""One command line for every run.

    python -m sparse_interp --config=quickstart --workdir=runs/quickstart

The configuration's field `run` names the run. Any field can be overridden, as
in --config.model.d_model=128; the configuration is one that ships, by its name,
or a file, and --config=file.py:variant hands the variant to its get_config.

What a user can cause (a wrong value, a missing file, a full disk) ends in one
line on stderr and exit status 2. Everything else is a defect of this program:
it keeps its traceback and ends with exit status 1.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import config_dict

from sparse_interp import command_line
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.configs import check, fields, paths
from sparse_interp.files import errors, interrupts, quiet
from sparse_interp.models import GPTConfig

Function = Callable[[config_dict.ConfigDict, str], dict[str, Any]]


def function(name: str) -> Function:
  """What does the run of a name; imports that alone, which takes seconds."""
  match name:
    case 'ground_truth':
      from sparse_interp.runs import ground_truth as module
    case 'import_model':
      from sparse_interp.runs import import_model as module
    case 'kernels':
      from sparse_interp.runs import kernels as module
    case 'pretrain':
      from sparse_interp.training import pretrain as module
    case 'prune':
      from sparse_interp.runs import prune as module
    case 'prune_time':
      from sparse_interp.runs import prune_time as module
    case 'quickstart':
      from sparse_interp.runs import quickstart as module
    case 'report':
      from sparse_interp.runs import report as module
    case 'seeds':
      from sparse_interp.runs import seeds as module
    case 'step_time':
      from sparse_interp.runs import step_time as module
    case 'strength':
      from sparse_interp.runs import strength as module
    case 'tune':
      from sparse_interp.runs import tune as module
    case _:
      raise NotImplementedError(name)  # a test compares with configs/runs.py
  return module.run


def run(
  config: config_dict.ConfigDict, workdir: str, source: str = 'config'
) -> None:
  """Does the run that `config.run` names.

  Args:
    config: Configuration as an experiment's `get_config` returns it. A ~ in
      its paths stands for the home directory, as in `workdir`.
    workdir: Directory that receives everything the run writes.
    source: What the configuration is called in errors, e.g. its file.

  Raises:
    ValueError: There is no run of that name, or a field is missing, unknown or
      wrong.
  """
  config = check.check(config, known_dataclasses(), source)
  paths.expand(config)
  from sparse_interp.training import memory

  memory.keep_freed_memory()
  with interrupts.handled():
    function(config.run)(config, os.path.expanduser(workdir))


def known_dataclasses() -> dict[str, dict[str, fields.Field]]:
  """Fields of the dataclasses that sections of a configuration hold."""
  return {
    'GPTConfig': fields.of_dataclass(GPTConfig),
    'PruneConfig': fields.of_dataclass(PruneConfig),
  }


def _known_fields(config: config_dict.ConfigDict) -> dict[str, fields.Field]:
  return check.needs(config, known_dataclasses())[1]


def cli(argv: Sequence[str] | None = None) -> None:
  """Does what a command line asks; ends as the module's docstring says.

  Args:
    argv: arguments; None for those of the process.
  """
  interrupts.install()  # before what takes seconds to import
  argv = sys.argv[1:] if argv is None else argv
  debug = command_line.wants_debug(argv)
  if debug:
    quiet.show_all()
  else:
    quiet.everywhere()
  with errors.in_one_line(debug=debug):
    asked = command_line.parse(argv, _known_fields)
  if asked.show is not None:
    _show(asked.show)
    return
  assert asked.config is not None  # nor is any of the others
  assert asked.workdir is not None
  assert asked.source is not None
  if not debug:
    errors.keep_threads_quiet()
  try:
    with errors.in_one_line(debug=debug):
      run(asked.config, asked.workdir, asked.source)
  except SystemExit as stop:
    if stop.code == 2:
      # Without the clean-up at exit, where writers that have failed once
      # would try again.
      sys.stderr.flush()
      os._exit(2)
    raise


def _show(what: str) -> None:
  from sparse_interp import help_text

  text = help_text.help_text() if what == 'help' else help_text.list_text()
  try:
    print(text, end='', flush=True)
  except BrokenPipeError:  # as in --help | head
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
  cli()
