import math

import pytest

from experiments import quickstart as experiment
from sparse_interp import tasks
from sparse_interp.runs import prune, table


def test_all_means_the_twenty_published_tasks_and_commas_separate():
  config = experiment.get_config('laptop')
  assert prune.task_names(config) == list(tasks.TASKS)
  config.tasks = 'with_as,for_while'
  assert prune.task_names(config) == ['with_as', 'for_while']


def test_hyperparameters_of_the_experiment_reach_the_library():
  config = experiment.get_config('laptop')
  config.prune.steps = 17
  assert prune.prune_config(config).steps == 17


def test_an_unknown_hyperparameter_is_named():
  config = experiment.get_config('laptop')
  config.prune.stepz = 3
  with pytest.raises(ValueError, match=r'prune\.stepz .* got 3; remove it'):
    prune.prune_config(config)


def test_pruning_without_a_model_says_how_to_name_one(tmp_path):
  config = experiment.get_config('tiny')
  config.model_workdir = ''
  with pytest.raises(ValueError, match='model_workdir must name'):
    prune.prune(config, str(tmp_path / 'new'))
  config.model_workdir = str(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='must hold a pretrained model'):
    prune.prune(config, str(tmp_path / 'new'))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('losses', 'missed'),
  [
    ((0.1, 0.6, 0.6), []),
    ((0.16, 0.6, 0.6), ['test_loss <= 0.15']),
    ((0.1, 0.49, 0.4), ['necessity_loss >= 0.5', 'random_loss >= 0.5']),
  ],
)
def test_a_circuit_that_misses_a_bound_is_listed_with_what_it_missed(
  losses, missed
):
  assert prune.missed_bounds(*losses, target=0.15) == missed


def test_geometric_mean_is_of_the_reported_circuits():
  assert prune.geometric_mean([2, 8]) == pytest.approx(4)
  assert prune.geometric_mean([0, 4]) == pytest.approx(2)  # 0 counts as 1
  assert prune.geometric_mean([]) is None


def test_the_table_shows_every_task_and_why_one_has_no_circuit(capsys):
  circuit = {
    'nodes': 12,
    'edges': 9,
    'test_loss': 0.12,
    'necessity_loss': 1.5,
    'random_loss': 0.7,
  }
  table.print_table(
    {
      'tasks': {
        'a': {'full_loss': 0.01, 'circuit': circuit},
        'b': {'full_loss': 0.6, 'circuit': None},
        'c': {'full_loss': None, 'circuit': None, 'unposable': 'why'},
        'd': {
          'full_loss': 0.1,
          'circuit': None,
          'failed_circuit': {'missed': ['test_loss <= 0.15']},
        },
      },
      'learned_tasks': ['a', 'd'],
      'pruned_tasks': ['a'],
      'geometric_mean_edges': math.e,
    }
  )
  printed = capsys.readouterr().out.splitlines()
  rows = {line.split()[0]: line for line in printed[2:6]}
  assert rows['a'].split()[1:] == ['0.010', '12', '9', '0.120', '1.50', '0.70']
  assert 'not learned' in rows['b']
  assert 'cannot be posed' in rows['c']
  assert 'missed test_loss <= 0.15' in rows['d']
  assert '2 tasks learned, 1 circuits' in printed[6]
  assert '2.7' in printed[6]
