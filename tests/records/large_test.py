"""Records of many units on much text take bounded memory."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_thousand_units_on_a_million_tokens_fit_in_two_gigabytes(tmp_path):
  # As users run it: the tests ask XLA for eight devices and for haste.
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  done = subprocess.run(
    [sys.executable, '-m', 'tests.records.large', str(tmp_path / 'records')],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  print(done.stdout)
  found = json.loads(done.stdout.splitlines()[-1])
  assert (found['units'], found['tokens']) == (1000, 1_000_064)
  assert found['excerpts'] > 30_000
  assert found['gigabytes'] < 2
