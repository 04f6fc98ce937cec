"""What libraries log stays with them, unless somebody asks for it."""

import logging
import subprocess
import sys
import warnings

import pytest

from sparse_interp.files import quiet

# What orbax, jax and others do, and what this package says itself.
NOISE = """
import logging, warnings
from sparse_interp.files import quiet
{setting}
from absl import logging as absl_logging
absl_logging.warning('noise of absl')
logging.getLogger('jax._src.compiler').warning('noise of jax')
logging.getLogger('orbax.checkpoint').error('noise of orbax')
warnings.warn('noise of numba')
logging.getLogger('jax._src.xla_bridge').warning('a GPU is not used')
logging.getLogger('sparse_interp').warning('ours')
"""


def stderr_of(setting):
  return subprocess.run(
    [sys.executable, '-c', NOISE.format(setting=setting)],
    capture_output=True,
    text=True,
    check=True,
  ).stderr


def test_commands_tell_only_what_is_for_their_user():
  text = stderr_of('quiet.everywhere()')
  assert 'noise' not in text
  assert 'a GPU is not used' in text
  assert 'ours' in text


def test_with_debug_all_is_told():
  assert stderr_of('quiet.show_all()').count('noise') == 4


def test_calls_from_python_are_quiet_and_leave_levels_as_they_were(caplog):
  logger = logging.getLogger('absl')
  before = logger.level

  @quiet.libraries()
  def fail():
    logger.warning('noise')
    warnings.warn('noise', stacklevel=1)
    raise KeyError

  with pytest.raises(KeyError):
    fail()
  assert not caplog.records
  assert logger.level == before


def test_calls_from_python_tell_all_where_our_logger_is_at_debug(
  caplog, monkeypatch
):
  monkeypatch.setattr(logging.getLogger('sparse_interp'), 'level', 10)
  logging.getLogger('sparse_interp').manager._clear_cache()
  with quiet.libraries():
    logging.getLogger('orbax').warning('noise')
  logging.getLogger('sparse_interp').manager._clear_cache()
  assert [record.message for record in caplog.records] == ['noise']
