"""A circuit that several tests write in formats of others."""

import pytest

from tests.interop.small_circuit import make_circuit


@pytest.fixture(scope='session')
def small():
  """A circuit, its model, a task and windows of text."""
  return make_circuit()
