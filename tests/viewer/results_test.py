import numpy as np
import pytest

from sparse_interp.viewer import results
from sparse_interp.viewer.artifacts import StoredCircuit

TARGET = results.Target(0.15, 'task')
NUMBERS = {'nodes': 3, 'edges': 2, 'test_loss': 0.1, 'test_kl': 0.3}
FOUND = {'learned': True, 'full_loss': 0.01, 'circuit': NUMBERS}
MISSED = {
  'learned': True,
  'full_loss': 0.01,
  'circuit': None,
  'failed_circuit': {**NUMBERS, 'missed': ['random_loss >= 0.5']},
  'reason': 'the circuit found missed random_loss >= 0.5 with 0.498',
}


def _stored(**document):
  return StoredCircuit(
    name='a',
    document=document,
    sites=('x',),
    nodes=np.zeros((3, 2), int),
    edges=np.zeros((2, 2), int),
    weights=np.zeros(2),
    means=np.zeros(3),
    scores=np.zeros(3),
    activations=np.zeros((3, 0)),
  )


STORED = _stored(
  metrics={'test_loss': 0.1, 'raw_loss': 0.7},
  calibration={'scale': 2.0, 'shift': 0.5},
)


def _outcome(entry, stored=STORED, target=TARGET):
  row = results.task_row('a', entry, stored, target)
  return row['status'], row['reason']


def test_a_circuit_that_missed_a_bound_is_not_counted_and_says_which():
  rows = [
    results.task_row('a', FOUND, STORED, TARGET),
    results.task_row('b', MISSED, STORED, TARGET),
  ]
  assert [row['status'] for row in rows] == ['circuit found', 'bound missed']
  assert 'missed random_loss >= 0.5 with 0.498' in rows[1]['reason']
  assert rows[1]['circuit']['nodes'] == 3  # its numbers are shown all the same
  assert rows[1]['stored']
  tiles = results.headline({}, rows, 2, TARGET)
  assert ['1 of 2', 'circuits below met every bound'] in tiles


@pytest.mark.parametrize(
  ('entry', 'stored', 'target', 'status', 'reason'),
  [
    (FOUND, STORED, TARGET, 'circuit found', ''),
    (FOUND, None, TARGET, 'files missing', 'its files are gone'),
    (
      {**FOUND, 'circuit': {**NUMBERS, 'edges': 5}},
      STORED,
      TARGET,
      'files differ',
      'tells of edges 5, the files of the circuit have 2',
    ),
    (
      FOUND,
      STORED,
      results.Target(0.2, 'kl'),
      'bound missed',
      'test_kl 0.300, target 0.2',
    ),
    (FOUND, STORED, results.Target(None, 'task'), 'circuit found', ''),
    (
      {**MISSED, 'reason': None},
      STORED,
      TARGET,
      'bound missed',
      'missed random_loss >= 0.5',
    ),
    (
      {'learned': False, 'full_loss': 0.15004},
      None,
      TARGET,
      'not learned',
      'test loss of the full model 0.15004, target 0.15',
    ),
    (
      {'learned': False, 'full_loss': 0.4},
      None,
      results.Target(None, 'task'),
      'not learned',
      'test loss of the full model 0.400',
    ),
    ({'unposable': 'why'}, None, TARGET, 'not posable', 'why'),
    (
      {'learned': True, 'circuit': None},
      None,
      TARGET,
      'not pruned',
      'learned, but no circuit was looked for',
    ),
    ({'trials': 3}, None, TARGET, 'not measured', 'no loss of the full model'),
  ],
)
def test_an_outcome_and_its_reason(entry, stored, target, status, reason):
  found, why = _outcome(entry, stored, target)
  assert found == status
  assert reason in why
  assert bool(why) == bool(reason)


def test_raw_numbers_of_older_summaries_are_those_of_the_circuit():
  row = results.task_row('a', FOUND, STORED, TARGET)
  shown = row['circuit']
  assert (shown['raw_loss'], shown['scale'], shown['shift']) == (0.7, 2, 0.5)
  other = {**FOUND, 'circuit': {**NUMBERS, 'edges': 5}}
  row = results.task_row('a', other, STORED, TARGET)
  assert 'raw_loss' not in row['circuit']  # of another circuit


def test_the_target_is_the_one_that_an_artifact_states():
  asked = {'asked': {'config': {'prune': {'target_loss': 0.3}}}}
  stated = {'target_loss': 0.7, 'target_on': 'kl'}

  def circuit(loss):
    return _stored(prune_config={'target_loss': loss})

  find = results.find_target
  assert find(stated | asked, []) == (0.7, 'kl')
  assert find(asked, [circuit(0.2)]) == (0.3, 'task')
  assert find({}, [circuit(0.2), circuit(0.2)]) == (0.2, 'task')
  assert find({}, [circuit(0.2), circuit(0.4)]) == (None, 'task')
  assert find({'asked': {'config': None}}, []) == (None, 'task')


def test_a_task_that_the_summary_describes_is_described():
  entry = {**FOUND, 'description': 'Pairs of agreement.jsonl.'}
  row = results.task_row('a', entry, STORED, TARGET)
  assert row['description'] == 'Pairs of agreement.jsonl.'
  assert results.task_row('a', FOUND, STORED, TARGET)['description'] == ''
