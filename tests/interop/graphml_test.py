"""GraphML: what a circuit becomes, and back."""

import dataclasses

import numpy as np
import pytest

from sparse_interp.interop import graphml


def _edge_names(circuit):
  sites = list(circuit.sites)
  return [
    (f'{sites[a]}:{i}', f'{sites[b]}:{j}')
    for a, i, b, j, _ in zip(
      *(column.tolist() for column in circuit.edges), strict=True
    )
  ]


def test_graphml_comes_back_with_the_same_nodes_edges_and_weights(
  small, tmp_path
):
  path = tmp_path / 'circuit.graphml'
  graphml.write(path, small.circuit)
  graph = graphml.read(path)
  circuit = small.circuit
  assert set(graph.nodes) == {
    f'{site}:{channel}'
    for site, kept in circuit.nodes.items()
    for channel in kept
  }
  assert set(graph.edges) == set(_edge_names(circuit))
  weights = [graph.edges[pair]['weight'] for pair in _edge_names(circuit)]
  np.testing.assert_array_equal(
    np.array(weights, np.float32), circuit.edges.weight
  )
  for fields in graph.nodes.values():
    assert fields['mean'] == circuit.means[fields['site']][fields['channel']]
  assert graph.graph['task'] == 'random'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda text: text[: len(text) // 2], 'must be GraphML'),
    (lambda text: b'', 'must be GraphML'),
    (lambda text: b'\xff\xfe' + text, 'must be GraphML'),
    (lambda text: b'<a/>', 'must be GraphML'),
    (
      lambda text: b'<!DOCTYPE a [<!ENTITY b "ha">]>' + text,
      'no document type or entities',
    ),
    (
      lambda text: text.replace(b'attr.name="weight"', b'attr.name="w"'),
      'give the edge .* a weight',
    ),
    (
      lambda text: text.replace(b'attr.name="channel"', b'attr.name="c"'),
      'give node .* a site and a channel',
    ),
    (
      lambda text: text.replace(b'"directed"', b'"undirected"'),
      'must be directed',
    ),
  ],
)
def test_damaged_graphml_is_refused_in_one_line(
  small, tmp_path, change, message
):
  path = tmp_path / 'circuit.graphml'
  graphml.write(path, small.circuit)
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(ValueError, match=message) as error:
    graphml.read(path)
  assert '\n' not in str(error.value)


def test_graphml_without_networkx_names_the_extra(small, tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'networkx', None)
  with pytest.raises(ValueError, match=r'sparse_interp\[graphml\]'):
    graphml.write(tmp_path / 'circuit.graphml', small.circuit)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'text', ['', '<a href="x">&amp;\'', 'a\x00\x0b\r\nb\tc', '\ud800🙂שלום\uffff']
)
def test_any_text_of_a_circuit_is_written_and_read(small, tmp_path, text):
  path = tmp_path / 'circuit.graphml'
  circuit = dataclasses.replace(small.circuit, task=text, description=text)
  graphml.write(path, circuit)
  read = graphml.read(path).graph
  kept = ''.join(c for c in text if c not in '\x00\x0b\r\ud800\uffff')
  assert (read['task'], read['description']) == (kept, kept)


def test_a_circuit_without_nodes_or_edges_is_written_and_read(small, tmp_path):
  circuit = small.circuit
  edges = type(circuit.edges)(*(column[:0] for column in circuit.edges))
  for nodes in (
    circuit.nodes,
    {site: kept[:0] for site, kept in circuit.nodes.items()},
  ):
    some = dataclasses.replace(circuit, nodes=nodes, edges=edges)
    graphml.write(tmp_path / 'circuit.graphml', some)
    graph = graphml.read(tmp_path / 'circuit.graphml')
    assert len(graph.nodes) == some.node_count
    assert not graph.edges
