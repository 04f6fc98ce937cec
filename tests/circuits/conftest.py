"""The model with a known circuit, made once."""

import pytest

from tests.circuits.known_model import make_known


@pytest.fixture(scope='session')
def known():
  """The model, means of its nodes, tasks, and the circuit that is in it."""
  return make_known()
