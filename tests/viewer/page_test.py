"""Pages of circuits in memory."""

import json
import re
import types

import pytest

from sparse_interp.files import circuit_files
from sparse_interp.files.verdict import Verdict, number
from sparse_interp.viewer import cells
from sparse_interp.viewer.cells import circuit_html
from sparse_interp.viewer.page import write_page
from tests.viewer.fake_workdir import write_circuit

_METRICS = {
  'full_loss': 0.02,
  'full_loss_interval': [0.01, 0.03],
  'full_conditions': {'all': 0.02},
  'test_loss': 0.1,
  'test_loss_interval': [0.05, 0.12],
  'raw_loss': 0.4,
  'raw_loss_interval': [0.3, 0.5],
  'necessity_loss': 2.0,
  'necessity_loss_interval': [1.5, 2.5],
  'random_loss': 0.69,
  'random_loss_interval': [0.68, 0.7],
}


class _InMemory:
  """A circuit as those who draw it see it."""

  task = 'random'

  def __init__(self, directory):
    self._files = circuit_files.read(directory)
    self.node_count = self._files[0]['node_count']
    self.edge_count = self._files[0]['edge_count']
    self.provenance = {'params_hash': 'abc'}

  def document(self):
    return {
      **self._files[0],
      'metrics': _METRICS,
      'prune_config': {'target_loss': 0.15, 'target_on': 'task'},
      'provenance': self.provenance,
    }

  def arrays(self):
    return self._files[1]


@pytest.fixture(scope='module')
def circuit(tmp_path_factory):
  directory = tmp_path_factory.mktemp('circuit') / 'c'
  write_circuit(directory, 'random', 30)
  return _InMemory(directory)


@pytest.fixture
def model(circuit):
  provenance = {**circuit.provenance, 'code_version': '1.2.3'}
  return types.SimpleNamespace(
    source='runs/<here>', workdir=None, provenance=provenance
  )


def _verdict(high):
  numbers = {
    'loss_calibrated': number(0.1, (0.05, high), 'loss', at_most=0.15),
    'necessity_raw': number(2.0, (1.5, 2.5), 'necessity', at_least=0.5),
    'kl': number(0.3, (0.2, 0.4), 'kl'),
  }
  return Verdict('random', numbers, (), {}, {'seed': 0})


def _data(path):
  page = path.read_text()
  found = re.search(r'<script[^>]*application/json[^>]*>(.*?)</script>', page)
  return json.loads(found[1])


def test_a_page_needs_no_workdir(circuit, model, tmp_path):
  path = tmp_path / 'circuit.html'
  write_page(path, model, [circuit], [_verdict(0.12)])
  assert list(tmp_path.iterdir()) == [path]
  data = _data(path)
  (task,) = data['tasks']
  assert task['name'] == 'random'
  assert task['status'] == 'circuit found'
  assert task['circuit']['test_loss'] == 0.1
  assert path.read_text().count('data-node=') >= circuit.node_count
  verdict = data['circuits'][0]['record']['verdict']
  assert verdict['found']
  assert verdict['numbers']['loss_calibrated']['value'] == 0.1
  assert ['code version', '1.2.3'] in data['facts']


def test_a_bound_that_is_missed_is_said(circuit, model, tmp_path):
  write_page(tmp_path / 'c.html', model, [circuit], [_verdict(0.2)])
  (task,) = _data(tmp_path / 'c.html')['tasks']
  assert task['status'] == 'bound missed'
  assert 'loss_calibrated 0.100 [0.050, 0.200], asked <= 0.15' in task['reason']


def test_without_a_verdict_nothing_counts_as_found(circuit, model, tmp_path):
  for verdicts in (None, [None]):
    write_page(tmp_path / 'c.html', model, [circuit], verdicts)
    data = _data(tmp_path / 'c.html')
    assert data['tasks'][0]['status'] == 'no verdict'
    assert 'no verdict' in data['circuits'][0]['standing']


def test_two_circuits_of_a_task_keep_apart(circuit, model, tmp_path):
  verdicts = [_verdict(0.12), _verdict(0.2)]
  write_page(tmp_path / 'c.html', model, [circuit, circuit], verdicts)
  tasks = _data(tmp_path / 'c.html')['tasks']
  assert [task['name'] for task in tasks] == ['random', 'random (2)']
  assert [t['status'] for t in tasks] == ['circuit found', 'bound missed']


def test_what_does_not_belong_together_is_refused(circuit, model, tmp_path):
  path = tmp_path / 'c.html'
  with pytest.raises(ValueError, match='one for each of 1 circuits, got 2'):
    write_page(path, model, [circuit], [None, None])
  model.provenance = {'params_hash': 'other'}
  with pytest.raises(ValueError, match='must be of this model'):
    write_page(path, model, [circuit])
  assert not path.exists()


def test_a_cell_is_the_drawing_alone(circuit):
  shown = circuit_html(circuit)
  assert shown.startswith('<div')
  assert shown.count('<svg') == 1
  assert shown.count('data-edge=') == circuit.edge_count


def test_a_circuit_too_large_for_a_cell_is_counted(circuit, monkeypatch):
  monkeypatch.setattr(cells, '_MOST_EDGES', circuit.edge_count - 1)
  shown = circuit_html(circuit)
  assert '<svg' not in shown
  assert f'{circuit.edge_count} edges' in shown
