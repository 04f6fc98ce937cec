"""Configurations that ship are found by name, in a clone and installed."""

import configparser
import pathlib
import shutil
import subprocess
import sys

import pytest

import sparse_interp
from sparse_interp import configs
from sparse_interp.configs import shipped
from sparse_interp.configs.runs import RUNS
from sparse_interp.ground_truth.compiled import programs

ROOT = pathlib.Path(__file__).parents[2]


def test_every_configuration_has_a_name_and_a_line():
  names = shipped.names()
  assert {'quickstart', 'pretrain/laptop', 'benchmarks/kernels'} <= set(names)
  assert 'benchmarks/torch_recipe' not in names  # no configuration
  assert all(names.values())
  for name in names:
    run = configs.load(name).run
    assert run in RUNS


def test_what_is_loaded_is_new_and_knows_its_variants():
  first = configs.load('quickstart', 'tiny')
  first.prune.steps = 3
  assert configs.load('quickstart', 'tiny').prune.steps != 3
  with pytest.raises(ValueError, match=r"must be one of .*got 'huge'"):
    configs.load('quickstart', 'huge')
  with pytest.raises(ValueError, match=r"must be one of .*got 'none'"):
    configs.load('none')


def test_installed_configurations_come_before_those_beside_the_package(
  tmp_path, monkeypatch
):
  package = tmp_path / 'sparse_interp'
  for place in (tmp_path, package):
    (place / 'experiments').mkdir(parents=True)
  monkeypatch.setattr(sparse_interp, '__file__', str(package / '__init__.py'))
  with pytest.raises(ValueError, match='must come with its configurations'):
    shipped.directory()
  # A directory of this name that is not ours does not count.
  (tmp_path / 'experiments' / 'other.py').touch()
  with pytest.raises(ValueError, match='must come with its configurations'):
    shipped.directory()
  for place in (tmp_path, package):
    (place / 'experiments' / 'quickstart.py').touch()
    assert shipped.directory() == place / 'experiments'


def test_setup_names_every_package_and_all_data():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  packages = set(setup['options']['packages'].split())
  found = {
    '.'.join(path.parent.relative_to(ROOT).parts)
    for top in ('sparse_interp', 'experiments')
    for path in (ROOT / top).rglob('__init__.py')
  }
  inside = {
    name.replace('experiments', 'sparse_interp.experiments', 1)
    if name.startswith('experiments')
    else name
    for name in found
  }
  assert packages == inside
  modules = list((ROOT / 'experiments').rglob('*.py'))
  assert all((path.parent / '__init__.py').exists() for path in modules)
  data = setup['options.package_data']
  for package, patterns in data.items():
    directory = ROOT.joinpath(*package.split('.'))
    for pattern in patterns.split(','):
      assert list(directory.glob(pattern.strip())), (package, pattern)
  assert {path.stem for path in programs.SHIPPED.glob('*.npz')} == set(
    programs.PROGRAMS
  )


@pytest.mark.slow
# An editable installation is what .ci/run itself begins with.
@pytest.mark.parametrize(
  'how', ['wheel', pytest.param('editable', marks=pytest.mark.long)]
)
def test_an_installation_runs_configurations_from_anywhere(how, tmp_path):
  source = tmp_path / 'source'
  shutil.copytree(
    ROOT,
    source,
    ignore=lambda directory, names: {
      *shutil.ignore_patterns('.git', '__pycache__', 'build')(directory, names),
      *(['runs'] if directory == str(ROOT) else []),
    },
  )
  environment = tmp_path / 'environment'
  subprocess.run([sys.executable, '-m', 'venv', environment], check=True)
  # What the package needs is borrowed; the package itself is installed.
  borrowed = [p for p in sys.path if p.endswith('site-packages')]
  site = next(environment.glob('lib/python*/site-packages'))
  (site / 'borrowed.pth').write_text('\n'.join(borrowed))
  options = ['-e'] if how == 'editable' else []
  pip = [environment / 'bin' / 'pip', 'install', '-q', '--no-deps']
  subprocess.run([*pip, *options, source], check=True)
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()

  def command(*words):
    return subprocess.run(
      words, cwd=elsewhere, capture_output=True, text=True, check=True
    ).stdout

  program = environment / 'bin' / 'sparse_interp'
  python = environment / 'bin' / 'python'
  listed = command(program, '--list')
  assert listed == command(python, '-m', 'sparse_interp', '--list')
  assert all(name in listed for name in shipped.names())
  command(python, '-c', 'from sparse_interp.experiments.pretrain import laptop')
  command(
    *(program, '--config=pretrain/tiny', '--config.train.tokens=3000'),
    *('--config.model.n_layer=1', '--workdir=w'),
  )
  assert (elsewhere / 'w' / 'model.json').exists()
