"""What the prune run prints."""

import math

from sparse_interp.runs import table


def test_the_table_shows_every_task_and_why_one_has_no_circuit(capsys):
  circuit = {
    'nodes': 12,
    'edges': 9,
    'ablation': 'zero',
    'test_loss': 0.12,
    'raw_loss': 0.34,
    'necessity_loss': 1.5,
    'random_loss': 0.7,
  }
  table.print_table(
    {
      'tasks': {
        'a': {'full_loss': 0.01, 'circuit': circuit},
        'b': {'full_loss': 0.6, 'circuit': None, 'learned': False},
        'c': {'full_loss': None, 'circuit': None, 'unposable': 'why'},
        'd': {
          'full_loss': 0.1,
          'circuit': None,
          'failed_circuit': {
            **circuit,
            'missed': ['loss_calibrated <= 0.15 with 0.1504'],
            'calibrated_necessity_loss': 0.3,
          },
        },
        'e': {'full_loss': 0.1, 'circuit': None, 'not_pruned': 'a reason'},
      },
      'learned_tasks': ['a', 'd'],
      'pruned_tasks': ['a'],
      'geometric_mean_edges': math.e,
    }
  )
  printed = capsys.readouterr().out.splitlines()
  rows = {line.split()[0]: line for line in printed[2:7]}
  assert rows['a'].split()[1:] == '0.010 12 9 0.120 0.340 1.500 0.700'.split()
  assert 'not learned' in rows['b']
  assert 'cannot be posed' in rows['c']
  # What fails is shown with its numbers.
  assert 'not found: missed loss_calibrated <= 0.15 with 0.1504' in rows['d']
  assert rows['d'].split()[1:8] == '0.100 12 9 0.120 0.340 0.300 0.700'.split()
  assert 'learned, not pruned: a reason' in rows['e']
  assert '2 tasks learned, 1 circuits that met every bound' in printed[7]
  assert '2.7' in printed[7]
  assert 'test pairs, ablation: zero' in printed[7]


def test_the_line_of_a_circuit_says_how_much_of_it_is_not_needed():
  found = {
    'nodes': 12,
    'edges': 9,
    'test_loss': 0.12,
    'raw_loss': 0.34,
    'necessity_loss': 1.5,
    'calibrated_necessity_loss': 0.66,
    'random_loss': 0.7,
    'droppable_units': 3,
  }
  line = table.circuit_line('a', {'circuit': found})
  assert 'without it 0.660' in line
  assert line.endswith('3 could be dropped alone')
