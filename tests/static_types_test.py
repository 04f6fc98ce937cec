"""The static type checker, as configured, still finds what is wrong."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EVERYWHERE = {
  'math.sqroot(2)': 'missing-attribute',
  'Pair(left=1, rihgt=2)': 'unknown-argument',
  'Pair(1)': 'missing-argument',
  'Pair(1, 2).middle': 'missing-attribute',
  'Pair(1, 2, 3)': 'too-many-positional-arguments',
  'pair': 'unresolved-reference',
}
OF_VALUES = {"Pair('1', 2)": 'invalid-argument-type', "1 + '1'": 'unsupported'}
SOURCE = """
import dataclasses
import math

from jaxtyping import Array, Float


@dataclasses.dataclass
class Pair:
  left: int
  right: int


def right(x: Float[Array, 'batch time *rest']) -> Float[Array, 'batch']:
  return math.sqrt(Pair(1, right=2).left) * x[:, 0]


"""


@pytest.mark.parametrize(
  ('room', 'planted'),
  [
    ('viewer', {}),
    ('viewer', EVERYWHERE | OF_VALUES),
    ('training', OF_VALUES),
    ('runs', OF_VALUES),
    ('circuits', EVERYWHERE),
  ],
)
def test_planted_errors_are_found(tmp_path, room, planted):
  shutil.copy(ROOT / 'pyproject.toml', tmp_path)
  path = tmp_path / 'sparse_interp' / room / 'planted.py'
  path.parent.mkdir(parents=True)
  path.write_text(SOURCE + '\n'.join(planted))
  command = [sys.executable, '-m', 'ty', 'check', '--output-format', 'concise']
  done = subprocess.run(
    [*command, '--project', tmp_path, '--python', sys.prefix],
    cwd=tmp_path,
    check=False,
    capture_output=True,
    text=True,
  )
  assert done.returncode == int(bool(planted)), done.stdout + done.stderr
  first = SOURCE.count('\n') + 1
  for line, rule in enumerate(planted.values(), first):
    found = [one for one in done.stdout.splitlines() if f'.py:{line}:' in one]
    assert any(rule in one for one in found), (line, done.stdout)
