"""Help tells of everything that can be named, in a moment."""

import subprocess
import sys

from sparse_interp import help_text, tasks
from sparse_interp.configs import fields, notes, shipped
from sparse_interp.configs.runs import RUNS
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import node_sites


def test_help_lists_runs_configurations_fields_tasks_and_sites():
  text = help_text.help_text()
  lines = text.splitlines()
  for name in (*RUNS, *shipped.names(), *tasks.TASKS):
    assert any(line.split()[:1] == [name] for line in lines), name
  for name, run in RUNS.items():
    for path in fields.of_config(shipped.load(run.reference, *run.variant)):
      loose = any(p.split('.')[0] == path.split('.')[0] for p in run.loose)
      shown = [line for line in lines if line.startswith(f'  {path} = ')]
      assert path == 'run' or shown or loose, (name, path)
  assert set(node_sites(GPTConfig(n_layer=1))) == {
    site.replace('{layer}', '0') for site in help_text.SITES
  }


def test_every_field_is_explained():
  texts = notes.of_shipped()
  for run in RUNS.values():
    known = texts | notes.of_reference(run.reference)
    for path in fields.of_config(shipped.load(run.reference, *run.variant)):
      loose = f'{path.split(".")[0]}.*' in run.loose
      assert path == 'run' or loose or known.get(path), path


def test_notes_are_comments_behind_or_before():
  lines = [
    'def get_config():',
    '  config.a = 1  # behind',
    '  # before,',
    '  # in two lines',
    '  config.b.c = (',
    '  # of nothing',
    '',
    '  config.d = 3',
    '    config.e = 4  # of one variant',
  ]
  assert notes.of_source(lines) == {
    'a': 'behind',
    'b.c': 'before, in two lines',
  }


def test_help_needs_no_jax():
  script = (
    'import sys\n'
    'from sparse_interp import main\n'
    'main.cli(["--help"])\n'
    'assert not {"jax", "flax", "orbax"} & set(sys.modules), "slow"\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=True
  )
  assert not done.stderr
  assert done.stdout.startswith('One command line for every run.')
