"""Keeps from users what libraries log and warn of about their own insides.

An error of theirs that matters is raised, and then told in one line.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

# Loggers of what the package stands on. jax says through xla_bridge that an
# accelerator is there and not used: that is for the user.
_LOGGERS = ('absl', 'asyncio', 'fsspec', 'grain', 'jax', 'numba', 'orbax')
_TOLD = ('jax._src.xla_bridge',)


def everywhere() -> None:
  """Keeps the whole process quiet; call before jax is imported."""
  # Messages of C++ code under jax and orbax; 3: only those that end it.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  if not sys.warnoptions:  # else the user has asked for them
    warnings.simplefilter('ignore')
  for name in _LOGGERS:
    logging.getLogger(name).setLevel(logging.CRITICAL)
  for name in _TOLD:
    logging.getLogger(name).setLevel(logging.WARNING)


def show_all() -> None:
  """Lets libraries speak, also within `libraries`."""
  logging.getLogger('sparse_interp').setLevel(logging.DEBUG)


@contextlib.contextmanager
def libraries() -> Iterator[None]:
  """Keeps them quiet for a while, for who calls the package from Python.

  Not where the logger 'sparse_interp' is at DEBUG, as with --debug.
  """
  if logging.getLogger('sparse_interp').isEnabledFor(logging.DEBUG):
    yield
    return
  loggers = [logging.getLogger(name) for name in _LOGGERS]
  levels = [logger.level for logger in loggers]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    for logger in loggers:
      logger.setLevel(logging.CRITICAL)
    try:
      yield
    finally:
      for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
