"""The golden path from end to end, on a model that learns next to nothing."""

import json
import os
import shutil

import numpy as np
import pytest

from experiments import prune as prune_experiment
from experiments import quickstart as experiment
from experiments import strength as strength_experiment
from sparse_interp import main
from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.files import sealed, versions
from sparse_interp.runs import strength_summary
from tests import whole_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('quickstart') / 'w'
  whole_runs.copy_of_finished(tmp_path_factory, workdir)
  return workdir


def _summary(workdir):
  return json.loads((workdir / 'summary.json').read_text())


def test_summary_says_what_was_asked_and_what_came_out(workdir):
  summary = _summary(workdir)
  assert summary['asked']['config']['run'] == 'quickstart'
  for field in ('corpus_hash', 'tokenizer_hash', 'code_version', 'device'):
    assert summary[field]
  assert summary['wall_seconds'] > 0
  assert set(summary['tasks']) == {'else_elif', 'bracket_brace'}
  for entry in summary['tasks'].values():
    low, high = entry['full_loss_interval']
    assert low <= entry['full_loss'] <= high
    assert entry['learned'] == (entry['full_loss'] <= 0.55)
  for tensor in summary['nonzeros'].values():
    assert tensor['found'] == tensor['asked']


def test_circuits_of_the_summary_are_those_on_disk(workdir):
  summary = _summary(workdir)
  assert summary['learned_tasks']
  for name in summary['learned_tasks']:
    circuit = circuit_lib.load(workdir / 'circuits' / name)
    entry = summary['tasks'][name]
    found = entry['circuit'] or entry['failed_circuit']
    assert found['edges'] == len(circuit.edges.weight)
    assert found['nodes'] == sum(map(len, circuit.nodes.values()))
    assert found['test_loss'] == circuit.metrics['test_loss']


def test_report_shows_every_task_and_circuit(workdir):
  page = (workdir / 'report.html').read_text()
  for name in _summary(workdir)['tasks']:
    assert name in page


def test_a_second_run_says_that_all_is_done_and_changes_nothing(
  workdir, capsys
):
  before = {
    path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()
  }
  main.run(experiment.get_config('tiny'), str(workdir))
  assert 'everything is done already' in capsys.readouterr().out
  for path, content in before.items():
    assert path.read_bytes() == content, path


def _lose(workdir, what):
  """Takes away or damages a part; returns the files that must come back."""
  circuits = sorted((workdir / 'circuits').iterdir())
  files = {
    'circuits': [f for d in circuits for f in d.iterdir()],
    'circuit': list(circuits[0].iterdir()),
    'description': [circuits[0] / 'circuit.json'],
    'arrays': [circuits[0] / 'circuit.npz'],
    'page': [workdir / 'report.html'],
  }[what.split()[-1]]
  for path in files:
    if what.startswith('half'):
      os.truncate(path, path.stat().st_size // 2)
    else:
      path.unlink()
  return files


@pytest.mark.parametrize(
  'what', ['all circuits', 'half arrays', 'half description', 'half page']
)
def test_what_is_lost_or_damaged_is_made_again(workdir, tmp_path, capsys, what):
  copy = tmp_path / 'w'
  shutil.copytree(workdir, copy)
  (copy / 'notes.txt').write_text('mine')
  files = _lose(copy, what)
  main.run(experiment.get_config('tiny'), str(copy))
  printed = capsys.readouterr().out
  assert 'everything is done already' not in printed
  assert ('found anew' in printed) == (
    what in ('half arrays', 'half description')
  )
  assert all(path.stat().st_size for path in files)
  assert _summary(copy)['tasks'] == _summary(workdir)['tasks']
  main.run(experiment.get_config('tiny'), str(copy))
  assert 'everything is done already' in capsys.readouterr().out
  assert (copy / 'notes.txt').read_text() == 'mine'


def test_versions_of_every_stage_are_in_the_summary(workdir):
  (entry,) = _summary(workdir)['versions']
  assert entry['phase'] == 'pretrain'
  assert entry['versions'] == versions.current()


def test_circuits_lost_in_the_middle_are_found_again_alike(workdir, capsys):
  name = _summary(workdir)['learned_tasks'][-1]
  directory = workdir / 'circuits' / name
  before = circuit_lib.load(directory)
  for path in directory.iterdir():
    path.unlink()
  summary = _summary(workdir)
  del summary['learned_tasks']
  sealed.write_json(workdir / 'summary.json', summary)
  main.run(experiment.get_config('tiny'), str(workdir))
  after = circuit_lib.load(directory)
  for site, kept in before.nodes.items():
    np.testing.assert_array_equal(kept, after.nodes[site])
  assert before.metrics == after.metrics


def test_the_prune_run_finds_the_same_circuits_in_a_workdir_of_its_own(
  workdir, tmp_path
):
  tiny = experiment.get_config('tiny')
  config = prune_experiment.get_config()
  config.model_workdir = str(workdir)
  config.tasks = _summary(workdir)['learned_tasks'][0]
  config.pairs, config.prune = tiny.pairs, tiny.prune
  main.run(config, str(tmp_path / 'w'))
  entry = _summary(tmp_path / 'w')['tasks'][config.tasks]
  assert entry == _summary(workdir)['tasks'][config.tasks]


def test_circuits_of_another_model_are_refused(workdir, tmp_path):
  copy = tmp_path / 'w'
  shutil.copytree(workdir, copy)
  name = _summary(copy)['learned_tasks'][0]
  path = copy / 'circuits' / name / 'circuit.json'
  stored = json.loads(path.read_text())
  stored['provenance']['params_hash'] = '0' * 64
  sealed.write_json(path, stored)
  (copy / 'report.html').unlink()
  with pytest.raises(ValueError, match='must hold circuits of this model'):
    main.run(experiment.get_config('tiny'), str(copy))


def _strength(workdir):
  config = strength_experiment.get_config()
  tiny = experiment.get_config('tiny')
  config.model_workdir = str(workdir)
  config.tasks, config.pairs = tiny.tasks, tiny.pairs
  for field in ('target_loss', 'steps', 'selection_pairs', 'holdout_pairs'):
    config.prune[field] = tiny.prune[field]
  config.prune.batch_pairs = tiny.prune.batch_pairs
  config.prune.attempts = 1
  config.trials, config.parallel = 2, 2
  config.targets = (0.6, 0.55)
  for jobs in config.together.values():
    jobs.update({'steps': 3, 'repetitions': 1})
  return config


@pytest.mark.long
def test_every_way_of_pruning_is_compared_and_kept(workdir, tmp_path, capsys):
  config = _strength(workdir)
  main.run(config, str(tmp_path / 'w'))
  summary = _summary(tmp_path / 'w')
  pruned = [task for task in summary['tasks'].values() if 'circuits' in task]
  assert pruned
  for task in pruned:
    edges = {m: c['edges'] for m, c in task['circuits'].items()}
    assert set(edges) == set(strength_summary.METHODS)
    assert edges['edges'] <= edges['edges_bisected']
    # The fixed defaults are trial 0: a search never loses to them.
    for found in task['search'].values():
      assert found['best_edges'] <= found['default_edges']
  ratio = summary['ratios']['edges_over_nodes']['ratio']
  logs = [
    np.log(
      max(task['circuits']['edges']['edges'], 1)
      / max(task['circuits']['nodes']['edges'], 1)
    )
    for task in pruned
  ]
  np.testing.assert_allclose(ratio, np.exp(np.mean(logs)))
  # Eight jobs at once learn what they learn alone.
  for found in summary['together'].values():
    assert found['largest_difference'] < 1e-3
  for differences in summary['agreement'].values():
    assert set(differences) == {'mean', 'task_mean', 'zero'}
    assert max(differences.values()) < 1e-5

  # Once more, nothing is pruned again: what is on disk counts.
  path = next((tmp_path / 'w' / 'tasks').glob('*.json'))
  before = path.stat().st_mtime_ns
  main.run(config, str(tmp_path / 'w'))
  assert path.stat().st_mtime_ns == before
  assert 'edges_over_nodes' in capsys.readouterr().out
