from sparse_interp.viewer import results

FOUND = {
  'learned': True,
  'full_loss': 0.01,
  'circuit': {'nodes': 3, 'edges': 2, 'test_loss': 0.1},
}
MISSED = {
  'learned': True,
  'full_loss': 0.01,
  'circuit': None,
  'reason': 'the circuit found missed test_loss <= 0.15',
}


def test_a_circuit_that_missed_a_bound_is_not_counted_and_says_why():
  rows = [
    results.task_row('a', FOUND, stored=True, target=0.15),
    results.task_row('b', MISSED, stored=True, target=0.15),
  ]
  assert [row['status'] for row in rows] == ['circuit found', 'not pruned']
  assert 'missed test_loss <= 0.15' in rows[1]['reason']
  tiles = results.headline({}, rows, n_circuits=2, target=0.15)
  assert ['1 of 2', 'circuits drawn below met every bound'] in tiles
