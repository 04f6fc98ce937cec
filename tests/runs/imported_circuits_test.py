"""An imported model is pruned, measured and shown like the trained one it is.

A model is trained, written in the released format, and imported again: the same
commands must find the same circuits in it.
"""

import json
import shutil

import numpy as np
import pytest

from experiments import import_model as import_experiment
from experiments import prune as prune_experiment
from experiments import quickstart
from sparse_interp import main
from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.files import model_files
from sparse_interp.interop.openai import openai_release
from sparse_interp.training import pretrain
from sparse_interp.viewer.report import write_report
from tests import whole_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Workdirs: trained, imported, and what pruning makes of each."""
  root = tmp_path_factory.mktemp('runs')
  tiny = quickstart.get_config('tiny')
  whole_runs.copy_of_finished(tmp_path_factory, root / 'trained')
  openai_release.save(root / 'released', *pretrain.load_model(root / 'trained'))
  config = import_experiment.get_config()
  config.source = str(root / 'released' / 'final_model.pt')
  config.tokenizer = str(root / 'trained')
  config.text = 'idioms'
  main.run(config, str(root / 'imported'))
  # Means over the same text, so that the circuits can be compared.
  own = np.load(root / 'imported' / model_files.SAMPLE)
  shutil.copy(
    root / 'trained' / model_files.SAMPLE,
    root / 'imported' / model_files.SAMPLE,
  )
  fields = model_files.read(root / 'imported')
  model_files.write(root / 'imported', fields)  # vouches for the other text
  for name in ('trained', 'imported'):
    config = prune_experiment.get_config()
    config.model_workdir = str(root / name)
    config.tasks, config.pairs, config.prune = (
      tiny.tasks,
      tiny.pairs,
      tiny.prune,
    )
    main.run(config, str(root / f'{name}-circuits'))
    write_report(
      str(root / f'{name}-circuits'), str(root / f'{name}-circuits/report.html')
    )
  return root, own


def _tasks(workdir):
  return json.loads((workdir / 'summary.json').read_text())['tasks']


def test_the_same_numbers_come_out(runs):
  root, _ = runs
  trained, imported = (
    _tasks(root / f'{name}-circuits') for name in ('trained', 'imported')
  )
  assert any(task['learned'] for task in trained.values())
  assert imported == trained


def test_the_same_circuits_are_found_and_shown(runs):
  root, _ = runs
  names = [p.name for p in (root / 'trained-circuits' / 'circuits').iterdir()]
  assert names
  for name in names:
    trained, imported = (
      circuit_lib.load(root / f'{kind}-circuits' / 'circuits' / name)
      for kind in ('trained', 'imported')
    )
    for site, kept in trained.nodes.items():
      np.testing.assert_array_equal(imported.nodes[site], kept)
    np.testing.assert_array_equal(imported.edges.weight, trained.edges.weight)
    page = (root / 'imported-circuits' / 'report.html').read_text()
    assert name in page


def test_the_text_of_the_import_is_cut_as_in_training(runs):
  root, own = runs
  trained = np.load(root / 'trained' / model_files.SAMPLE)
  assert own.shape[1] == trained.shape[1]
  assert own.size > 60_000
