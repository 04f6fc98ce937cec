"""Exactly k, as users run it: with all optimisations of the compiler."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def run(script: str, *arguments: str, devices: int = 1) -> list[str]:
  """Lines that a script prints in a process with the compiler's own flags."""
  done = subprocess.run(
    [sys.executable, str(HERE / script), *arguments],
    env=os.environ
    | {
      'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.mark.slow
def test_every_update_leaves_as_many_weights_as_were_asked_for():
  assert run('exact_counts.py') == ['0 off']


@pytest.mark.slow
@pytest.mark.parametrize(
  ('seeds', 'steps', 'devices', 'fsdp'),
  [
    ('0,1,2,3,4', '1000', 1, '1'),
    ('4', '100', 2, '2'),
    ('9', '100', 4, '2'),
    ('4', '100', 8, '8'),
  ],
)
def test_a_model_in_training_has_them_after_every_step(
  seeds, steps, devices, fsdp
):
  lines = run('training_counts.py', 'tiny', seeds, steps, fsdp, devices=devices)
  assert [line.split(': ')[1] for line in lines] == ['0 off'] * len(
    seeds.split(',')
  )
