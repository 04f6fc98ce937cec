"""One command line for every run.

    python -m sparse_interp.main --config=experiments/quickstart.py \\
        --workdir=runs/quickstart

The configuration's field `run` names the run. Any field can be overridden, as
in --config.model.d_model=128, and --config=file.py:variant hands the variant to
the file's get_config.

What a user can cause (a wrong value, a missing file, a full disk) ends in one
line on stderr and exit status 2. Everything else is a defect of this program:
it keeps its traceback and ends with exit status 1.
"""

from sparse_interp.files import interrupts

if __name__ == '__main__':
  interrupts.install()  # before what takes seconds to import

import os
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from sparse_interp.files import errors
from sparse_interp.runs import (
  ground_truth,
  import_model,
  kernels,
  prune,
  prune_time,
  quickstart,
  step_time,
  strength,
)
from sparse_interp.training import memory, pretrain

RUNS = {
  'ground_truth': ground_truth.ground_truth,
  'import_model': import_model.import_model,
  'kernels': kernels.kernels,
  'pretrain': pretrain.pretrain,
  'prune': prune.prune,
  'prune_time': prune_time.prune_time,
  'quickstart': quickstart.quickstart,
  'step_time': step_time.step_time,
  'strength': strength.strength,
}

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Python file with get_config(), e.g. under experiments/.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory for all that the run writes; made if missing.'
)
_DEBUG = flags.DEFINE_bool(
  'debug', False, 'Show the traceback even where the user caused the error.'
)


def run(config: config_dict.ConfigDict, workdir: str) -> None:
  """Does the run that `config.run` names.

  Args:
    config: Configuration as an experiment's `get_config` returns it.
    workdir: Directory that receives everything the run writes.

  Raises:
    ValueError: There is no run of that name.
  """
  name = config.get('run')
  if name not in RUNS:
    raise ValueError(
      f'run must be one of {", ".join(RUNS)}, got {name!r}; '
      'set it in the configuration or with --config.run.'
    )
  memory.keep_freed_memory()
  with interrupts.handled():
    RUNS[name](config, workdir)


def _parse_flags(argv: Sequence[str]) -> None:
  """Parses the command line; what is wrong with it ends in one line."""
  debug = '--debug' in argv
  # Orbax narrates at INFO what the runs say better, and logs as an ERROR, with
  # a long traceback, what it then raises.
  flags.FLAGS.verbosity = logging.WARNING if debug else logging.FATAL
  kinds = (flags.Error, TypeError, SyntaxError)
  with errors.in_one_line(*kinds, debug=debug):
    try:
      positional = flags.FLAGS(argv)[1:]
      _CONFIG.value and _CONFIG.value.lock()  # raises if it was not found
    except OSError as error:
      reason = str(error.__cause__ or error).splitlines()[-1].strip()
      raise ValueError(
        'config must be a Python file that can be read, got '
        f'{reason}; look for one in experiments/.'
      ) from error
    except (AttributeError, KeyError) as error:
      # The library hands on a KeyError inside another error.
      message = error.args[0]
      message = message.args[0] if isinstance(message, KeyError) else message
      raise ValueError(
        'config must define get_config() and every field that is overridden, '
        f'but: {" ".join(str(message).splitlines())}'
      ) from error
    if positional:
      raise ValueError(
        f'arguments must be flags, got {positional[0]!r}; '
        'write --name=value, with quotes where the value contains spaces.'
      )
    for flag in (_CONFIG, _WORKDIR):
      if not flag.value:
        raise ValueError(
          f'{flag.name} must be given; add --{flag.name}=<path>, '
          'and see --help.'
        )


def main(argv: None) -> None:
  """Does the run; ends as the module's docstring says."""
  del argv  # all in the flags
  if not _DEBUG.value:
    errors.keep_threads_quiet()
  try:
    with errors.in_one_line(debug=_DEBUG.value):
      run(_CONFIG.value, _WORKDIR.value)
  except SystemExit as stop:
    if stop.code == 2:
      # Without the clean-up at exit, where writers that have failed once
      # would try again.
      sys.stderr.flush()
      os._exit(2)
    raise


if __name__ == '__main__':
  app.run(main, flags_parser=_parse_flags)
