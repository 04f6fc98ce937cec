"""What several tests write in formats of others, or change before reading."""

import shutil

import pytest

from tests.interop.hugging_face import hf_reference
from tests.interop.small_circuit import make_circuit


@pytest.fixture(scope='session')
def small():
  """A circuit, its model, a task and windows of text."""
  return make_circuit()


@pytest.fixture
def hf_copy(tmp_path, request):
  """(case, directory with a copy of it that a test may change)."""
  case = getattr(request, 'param', 'gpt2')
  shutil.copytree(hf_reference.DIRECTORY / case, tmp_path / case)
  return case, tmp_path / case
