"""Neuronpedia's graphs and GraphML: what a circuit becomes, and back."""

import copy
import json

import numpy as np
import pytest

from sparse_interp.interop import graphml, neuronpedia


@pytest.fixture
def graph(small):
  return neuronpedia.make_graph(small.circuit, 'my-graph', 'my-model')


def test_the_graph_keeps_to_the_schema_and_has_every_node_and_weight(
  small, graph, tmp_path
):
  neuronpedia.write(tmp_path / 'deep' / 'graph.json', graph)
  read = json.loads((tmp_path / 'deep' / 'graph.json').read_text())
  assert read == graph
  # Required by graph-schema.json 1.0.0.
  assert read['metadata']['slug'] == 'my-graph'
  assert read['metadata']['scan'] == 'my-model'
  tokens = read['metadata']['prompt_tokens']
  assert ''.join(tokens) == read['metadata']['prompt']
  required = 'node_id feature layer ctx_idx feature_type jsNodeId clerp'
  for node in read['nodes']:
    assert set(required.split()) <= set(node)
    assert 0 <= node['ctx_idx'] < len(tokens)
  features = [n for n in read['nodes'] if n['layer'] != 'E']
  assert len(features) == small.circuit.node_count
  assert len(read['nodes']) == small.circuit.node_count + len(tokens)
  labels = {node['node_id']: node['clerp'] for node in read['nodes']}
  layers = {node['node_id']: node['layer'] for node in features}
  found = sorted(
    (labels[e['source']].split()[0], labels[e['target']].split()[0])
    for e in read['links']
    if int(layers[e['target']]) - int(layers[e['source']]) <= 3
    and e['weight'] != 1.0
  )
  assert found == sorted(_edge_names(small.circuit))
  for link in read['links']:
    assert int(layers[link['source']]) < int(layers[link['target']])


def _edge_names(circuit):
  sites = list(circuit.sites)
  return [
    (f'{sites[a]}:{i}', f'{sites[b]}:{j}')
    for a, i, b, j, _ in zip(
      *(column.tolist() for column in circuit.edges), strict=True
    )
  ]


def test_the_residual_stream_links_writes_to_later_reads_of_a_channel(
  small, graph
):
  circuit = small.circuit
  expected = 0
  sites = list(circuit.sites)
  for i, write in enumerate(sites):
    for read in sites[i:]:
      if write.endswith('resid_delta') and (
        read.endswith('act_in') or read == 'final_resid'
      ):
        both = np.intersect1d(circuit.nodes[write], circuit.nodes[read])
        expected += len(both)
  assert len(graph['links']) == circuit.edge_count + expected


def test_a_node_stands_where_it_is_strongest(small, graph):
  circuit = small.circuit
  node = next(n for n in graph['nodes'] if n['clerp'].startswith('0.mlp.post'))
  site, channel = node['clerp'].split(':')
  column = circuit.nodes[site].tolist().index(int(channel))
  length = len(circuit.examples[0]['pieces'])
  values = circuit.activations[site][0, :length, column]
  assert node['activation'] == pytest.approx(values[node['ctx_idx']])
  assert abs(node['activation']) == pytest.approx(np.abs(values).max())


def test_an_example_that_is_not_there_is_refused(small):
  with pytest.raises(ValueError, match='one of the 10 of the circuit'):
    neuronpedia.make_graph(small.circuit, 'a', 'b', 10)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda g: g.pop('qParams'), "qParams must be dict, got 'None'"),
    (lambda g: g['metadata'].pop('scan'), 'metadata.scan must be there'),
    (
      lambda g: g['metadata']['prompt_tokens'].append(3),
      r"prompt_tokens\[\d+\] must be str, got '3'",
    ),
    (lambda g: g['nodes'][2].pop('clerp'), r'nodes\[2\].clerp must be there'),
    (
      lambda g: g['nodes'][2].update(ctx_idx=1.5),
      r"nodes\[2\].ctx_idx must be int, got '1.5'",
    ),
    (
      lambda g: g['nodes'][2].update(ctx_idx=True),
      r"nodes\[2\].ctx_idx must be int, got 'True'",
    ),
    (
      lambda g: g['nodes'].append(g['nodes'][0]),
      'node_id of nodes must be unlike every other',
    ),
    (
      lambda g: g['links'][0].update(source='nowhere'),
      r"links\[0\].source must be the node_id of a node, got 'nowhere'",
    ),
    (
      lambda g: g['links'][0].update(weight=float('nan')),
      r'links\[0\].weight must be int or float',
    ),
  ],
)
def test_what_breaks_the_schema_is_refused_and_not_written(
  graph, tmp_path, change, message
):
  broken = copy.deepcopy(graph)
  change(broken)
  with pytest.raises(ValueError, match=message) as error:
    neuronpedia.write(tmp_path / 'graph.json', broken)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


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
