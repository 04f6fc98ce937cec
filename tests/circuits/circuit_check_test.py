"""Circuits made by hand: what cannot be is named, place and value."""

import json

import numpy as np
import pytest

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.files import circuit_files
from tests.interop.small_circuit import make_circuit


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  directory = tmp_path_factory.mktemp('circuits') / 'small'
  circuit_lib.save(make_circuit().circuit, directory)
  return directory


@pytest.fixture
def by_hand(saved, tmp_path):
  """Writes a circuit as others would: without any hash."""
  document = json.loads((saved / circuit_files.JSON).read_text())
  del document['sha256'], document['npz_sha256']
  with np.load(saved / circuit_files.NPZ) as archive:
    arrays = dict(archive)

  def write(change):
    change(document, arrays)
    (tmp_path / circuit_files.JSON).write_text(json.dumps(document))
    np.savez(tmp_path / circuit_files.NPZ, **arrays)
    return tmp_path

  return write


def test_a_circuit_without_hashes_is_read(by_hand, saved):
  found = circuit_lib.load(by_hand(lambda document, arrays: None))
  written = circuit_lib.load(saved)
  assert found.node_count == written.node_count
  assert found.edge_count == written.edge_count > 20


def replace(place, *values):
  """Sets an entry of the document, 'a.b.0' where it is nested."""

  def change(document, arrays):
    *path, last = place.split('|')
    for key in path:
      document = document[int(key) if isinstance(document, list) else key]
    document[int(last) if isinstance(document, list) else last] = values[0]

  return change


def nodes(*channels):
  return replace('nodes|0.attn.q', list(channels))


def edge(column, value):
  def change(document, arrays):
    arrays[f'edges/{column}'] = arrays[f'edges/{column}'].copy()
    arrays[f'edges/{column}'][0] = value

  return change


def array(name, make):
  def change(document, arrays):
    arrays[name] = make(arrays[name])

  return change


def drop(name):
  return lambda document, arrays: arrays.pop(name)


def drop_field(name):
  return lambda document, arrays: document.pop(name)


def one_twice(document, arrays):
  for name in ('source_site', 'source', 'target_site', 'target', 'weight'):
    column = arrays[f'edges/{name}']
    arrays[f'edges/{name}'] = np.append(column, column[-1:])
  document['edge_count'] += 1


def with_nan(values):
  values = values.copy()
  values.flat[0] = np.nan
  return values


NAN = float('nan')
EDGES = 'source_site', 'source', 'target_site', 'target'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (nodes(3, 16), r'nodes of 0\.attn\.q in \[0, 16\), got 16'),
    (nodes(-1, 3), r'nodes of 0\.attn\.q in \[0, 16\), got -1'),
    (nodes(3, 2), r'nodes of 0\.attn\.q ascending, got \[3, 2\]'),
    (nodes(3, 3), r'nodes of 0\.attn\.q ascending, got \[3, 3\]'),
    (nodes(1.5), r'nodes of 0\.attn\.q as whole numbers, got 1\.5'),
    (nodes(True), r'nodes of 0\.attn\.q as whole numbers, got True'),
    (nodes(), 'node_count of the'),
    (replace('nodes|0.attn.q', None), 'as a list of channels, got None'),
    (replace('nodes|5.attn.q', []), r"at sites of the model, got '5\.attn\.q'"),
    (replace('node_count', 3), 'node_count of the .* it lists, got 3'),
    (replace('edge_count', 3), r'edge_count of the .* circuit\.npz, got 3'),
    (replace('edge_count', 3.5), 'a whole number as edge_count, got 3.5'),
    (replace('sites|2|1', 17), r"sites with \['0\.attn\.k', 16\], got"),
    (replace('sites', []), 'as many sites as a model of 2 layers, got 0'),
    (replace('model|n_layer', 10**9), 'as many sites as a model of 1000000000'),
    (replace('model|n_layer', 'x'), "can be, got this: model.n_layer = 'x'"),
    (replace('model|n_layer', 2.0), r'got this: model\.n_layer = 2\.0'),
    (replace('model|causal', 1), r'got this: model\.causal = 1'),
    (replace('model|d_mlp', True), r'got this: model\.d_mlp = True'),
    (replace('model|activation_sites', 'ab'), r"activation_sites = 'ab'"),
    (replace('model|bogus', 1), 'a model that can be'),
    (replace('model|d_head', -4), 'got this: model.d_head must be a positive'),
    (replace('gates', 'neurons'), "gates nodes or edges, got 'neurons'"),
    (replace('calibration|scale', NAN), 'calibration.scale finite, got nan'),
    (replace('calibration|scale', '1'), 'calibration.scale as a number, got'),
    (replace('calibration', {}), 'calibration.scale as a number, got None'),
    (replace('metrics|test_loss', NAN), 'metrics.test_loss finite, got nan'),
    (replace('metrics|a\nb', NAN), 'metrics.a b finite, got nan'),
    (replace('history|step', [1]), 'history with lists of equal length, got'),
    (replace('history|step', [1, 'x']), 'history.step as numbers, got'),
    (
      replace('examples|0|probability', 2),
      r'\[0\].probability in \[0,',
    ),
    (replace('examples|0|pieces', 'ab'), 'pieces as a list of texts, got'),
    (replace('examples|0', 1), r'examples\[0\] as an object, got 1'),
    (replace('examples', []), r'of shape \(0, 9\), got \(10, 9\)'),
    (replace('examples|0|pieces', ['a'] * 10), 'as long as the pieces of'),
    (replace('task', 7), 'text as task, got 7'),
    (replace('sha257', 'x'), "known fields only, got 'sha257'"),
    (drop_field('provenance'), "every field, got none named 'provenance'"),
    (
      drop('mean/0.attn.q'),
      "that it needs, got no 'mean/0.attn.q'",
    ),
    (drop('activation/final_resid'), "got no 'activation/final_resid'"),
    (drop('edges/weight'), "got no 'edges/weight'"),
    (drop('examples/tokens'), 'examples/tokens as an array, got none'),
    (array('mean/0.attn.q', lambda a: a[:-1]), r'of shape \(16\), got \(15,\)'),
    (array('mean/0.attn.q', with_nan), 'mean/0.attn.q as finite numbers'),
    (array('mean/0.attn.q', lambda a: a.astype(str)), 'as finite numbers, got'),
    (array('edges/weight', with_nan), 'edges/weight as finite numbers'),
    (array('edges/weight', lambda a: a[1:]), 'edges of equal length, got'),
    (array('edges/weight', lambda a: 0 * a), 'edges/weight nonzero, got 0'),
    (array('edges/source', lambda a: a * 1.0), 'edges/source as whole numbers'),
    (array('edges/source', lambda a: a[None]), r'edges/source of shape \(_\)'),
    (array('examples/tokens', lambda a: a + 24), r'in \[0, 24\), got'),
    (array('examples/tokens', lambda a: a[0]), 'with two axes, got'),
    (edge('source_site', 17), r'edges/source_site in \[0, 17\), got \[17\]'),
    (edge('target_site', -1), r'edges/target_site in \[0, 17\), got \[-1\]'),
    (edge('target_site', 16), 'edges where the model has weights, got'),
    (edge('source', 99), r'edges between its nodes, got .*:99 -> '),
    (edge('target', -1), r'edges between its nodes, got .*:-1;'),
    (one_twice, 'edges each once, got .* twice'),
    (
      lambda d, a: a.update({'score/0.attn.act_in': np.ones(3, 'f4')}),
      r'score/0\.attn\.act_in of shape \(16\), got \(3,\)',
    ),
    (
      lambda d, a: a.update(
        {'score/0.mlp.act_in->0.mlp.post_act': np.ones(999)}
      ),
      'for at most 320 weights, got 999',
    ),
    (
      lambda d, a: a.update({'bogus/x': np.ones(3)}),
      "known arrays only, got 'bogus/x'",
    ),
  ],
)
def test_what_cannot_be_is_named_in_one_line(by_hand, change, message):
  directory = by_hand(change)
  with pytest.raises(ValueError, match=message) as error:
    circuit_lib.load(directory)
  assert str(error.value).startswith(f'circuit file {directory}/circuit.')
  assert '\n' not in str(error.value)
  assert len(str(error.value)) < 300 + len(str(directory))


def test_nesting_without_end_is_refused(by_hand):
  directory = by_hand(lambda document, arrays: None)
  path = directory / circuit_files.JSON
  text = path.read_text()
  for depth in (60, 100_000):
    deep = '[' * depth + ']' * depth
    path.write_text(text[:-1] + f', "metrics": {{"x": {deep}}}}}')
    with pytest.raises(ValueError, match=r'nested less than 50|must be whole'):
      circuit_lib.load(directory)


def test_a_circuit_of_scores_on_edges_is_read(by_hand):
  name = 'score/0.mlp.act_in->0.mlp.post_act'
  directory = by_hand(lambda d, a: a.update({name: np.ones(30, np.float32)}))
  assert len(circuit_lib.load(directory).scores) == 1
