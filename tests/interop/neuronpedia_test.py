"""Neuronpedia's graphs: judged by what their readers make of them."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from sparse_interp.interop import neuronpedia
from tests.interop import graph_readers


@pytest.fixture
def graph(small):
  return neuronpedia.make_graph(small.circuit, 'my-graph', 'my-model')


@pytest.fixture(params=[1, 2, 30])
def circuit(request, small):
  """As if of models of one block, of two, and of more than 26."""
  circuit, layers = small.circuit, request.param
  if layers == 1:
    edges = circuit.edges
    first = np.array(['1.' not in site for site in circuit.sites])
    own = first[edges.source_site] & first[edges.target_site]
    edges = type(edges)(*(column[own] for column in edges))
    circuit = dataclasses.replace(circuit, edges=edges)
  config = dataclasses.replace(circuit.config, n_layer=layers)

  def moved(by_site):
    return {
      site.replace('1.', f'{layers - 1}.'): value
      for site, value in by_site.items()
      if layers > 1 or not site.startswith('1.')
    }

  return dataclasses.replace(
    circuit,
    config=config,
    sites=moved(circuit.sites),
    nodes=moved(circuit.nodes),
    activations=moved(circuit.activations),
  )


def _only(circuit, sites):
  """The circuit without edges, and without nodes at all other sites."""
  nodes = {
    s: kept[: len(kept) * (s in sites)] for s, kept in circuit.nodes.items()
  }
  activations = {
    site: values[..., : len(nodes[site])]
    for site, values in circuit.activations.items()
  }
  edges = type(circuit.edges)(*(column[:0] for column in circuit.edges))
  return dataclasses.replace(
    circuit, nodes=nodes, activations=activations, edges=edges
  )


def _assert_drawn(graph, layers):
  """Every node has a row in both readers, apart from the prompt and others."""
  by_reader = (
    graph_readers.neuronpedia_rows(graph, layers),
    graph_readers.circuit_tracer_rows(graph),
  )
  for rows in by_reader:
    assert None not in rows.values()
    for node in graph['nodes']:
      is_prompt = node['feature_type'] == 'embedding'
      assert (rows[node['node_id']] == 0) == is_prompt
    for link in graph['links']:
      assert rows[link['source']] <= rows[link['target']]


@pytest.mark.slow
def test_every_node_has_a_row_in_both_readers(circuit, tmp_path):
  layers = circuit.config.n_layer
  for example in range(len(circuit.examples)):
    graph = neuronpedia.make_graph(circuit, 'a', 'b', example)
    _assert_drawn(graph, layers)
    neuronpedia.write(tmp_path / 'graph.json', graph)


def test_circuits_of_few_sites_have_their_rows_too(circuit, tmp_path):
  top = f'{circuit.config.n_layer - 1}.mlp.post_act'
  for sites in (['final_resid'], ['0.attn.q'], [top]):
    some = _only(circuit, sites)
    graph = neuronpedia.make_graph(some, 'a', 'b')
    _assert_drawn(graph, circuit.config.n_layer)
    neuronpedia.write(tmp_path / 'graph.json', graph)
  gone = {k: v for k, v in circuit.sites.items() if k != 'final_resid'}
  without = dataclasses.replace(_only(circuit, ['0.attn.q']), sites=gone)
  graph = neuronpedia.make_graph(without, 'a', 'b')
  _assert_drawn(graph, circuit.config.n_layer)


def test_an_empty_circuit_is_refused(circuit):
  with pytest.raises(
    ValueError, match=r'must have a node .* got none'
  ) as error:
    neuronpedia.make_graph(_only(circuit, []), 'a', 'b')
  assert '\n' not in str(error.value)


def test_ids_and_features_say_layer_and_index_and_are_all_different(circuit):
  graph = neuronpedia.make_graph(circuit, 'a', 'b')
  places = graph['metadata']['generation_settings']['sites']
  features = [
    node for node in graph['nodes'] if node['feature_type'].startswith('cross')
  ]
  assert len(features) == circuit.node_count
  assert len({node['feature'] for node in features}) == len(features)
  for node in features:
    layer, index, position = map(int, node['node_id'].split('_'))
    assert (str(layer), position) == (node['layer'], node['ctx_idx'])
    assert graph_readers.unpair(node['feature']) == (layer, index)
    site, channel = node['clerp'].split(' ')[0].split(':')
    assert places[site]['layer'] == layer
    assert places[site]['first_index'] + int(channel) == index


def test_answers_stand_at_the_last_token_with_their_probabilities(small, graph):
  shown = small.circuit.examples[0]
  logits = [n for n in graph['nodes'] if n['feature_type'] == 'logit']
  assert [n['is_target_logit'] for n in logits] == [True, False]
  assert sum(n['token_prob'] for n in logits) == pytest.approx(1)
  assert logits[0]['clerp'].startswith('Output "x" (p=0.500)')
  assert {n['ctx_idx'] for n in logits} == {len(shown['pieces']) - 1}


def test_a_label_cannot_be_taken_for_a_probability(small):
  examples = [{**small.circuit.examples[0], 'answer': '(p=none'}]
  circuit = dataclasses.replace(small.circuit, examples=examples)
  graph = neuronpedia.make_graph(circuit, 'a', 'b')
  _assert_drawn(graph, 2)


def test_the_graph_keeps_to_the_schema_and_has_every_node_and_weight(
  small, graph, tmp_path
):
  neuronpedia.write(tmp_path / 'deep' / 'graph.json', graph)
  text = (tmp_path / 'deep' / 'graph.json').read_text()
  assert len(text) >= 1024  # the least that an upload takes
  read = json.loads(text)
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
  circuit = small.circuit
  assert len(read['nodes']) == circuit.node_count + len(tokens) + 2
  labels = {n['node_id']: n['clerp'].split()[0] for n in read['nodes']}
  sites = list(circuit.sites)
  expected = [
    (f'{sites[a]}:{i}', f'{sites[b]}:{j}', weight)
    for a, i, b, j, weight in zip(
      *(column.tolist() for column in circuit.edges), strict=True
    )
  ]
  found = [
    (labels[e['source']], labels[e['target']], e['weight'])
    for e in read['links']
  ]
  assert found[: len(expected)] == expected
  assert all(weight == 1.0 for *_, weight in found[len(expected) :])


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


def test_a_graph_of_another_tool_is_not_refused(graph):
  """circuit-tracer's errors have no feature, one of each kind at a token."""
  for i, kind in enumerate(('mlp reconstruction error', 'lorsa error')):
    error = {'node_id': f'error_{i}_1', 'jsNodeId': '0_1-0', 'clerp': ''}
    place = {'feature': -1, 'layer': 0, 'ctx_idx': 1, 'feature_type': kind}
    graph['nodes'].append(error | place)
  graph['nodes'] = [
    {**node, 'influence': None, 'run_idx': 0} for node in graph['nodes']
  ]
  neuronpedia.check(graph)


def test_an_example_that_is_not_there_is_refused(small):
  with pytest.raises(ValueError, match='one of the 10 of the circuit'):
    neuronpedia.make_graph(small.circuit, 'a', 'b', 10)


@pytest.mark.parametrize(
  'name',
  ['final kwarg #1', 'openai/circuit-sparsity', 'é', '', 'a\n', '١', '..?'],
)
@pytest.mark.parametrize('field', ['slug', 'scan'])
def test_names_that_an_upload_refuses_are_refused(
  small, graph, tmp_path, field, name
):
  names = {'slug': 'a', 'scan': 'b', field: name}
  with pytest.raises(ValueError, match=f'{field} must be letters') as error:
    neuronpedia.make_graph(small.circuit, **names)
  assert '\n' not in str(error.value)
  graph['metadata'][field] = name
  with pytest.raises(ValueError, match=f'{field} must be letters'):
    neuronpedia.write(tmp_path / 'graph.json', graph)


def test_a_remedy_for_a_name_is_one_that_is_taken(small):
  with pytest.raises(ValueError, match=r"choose e\.g\. 'openai-model'"):
    neuronpedia.make_graph(small.circuit, 'a', 'openai/model')
  neuronpedia.make_graph(small.circuit, 'a', 'openai-model')


def _without_logits(graph, layer):
  graph['nodes'] = [n for n in graph['nodes'] if n['feature_type'] != 'logit']
  graph['nodes'][-1]['layer'] = layer


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda g: g.pop('qParams'), "qParams must be dict, got 'None'"),
    (lambda g: g['metadata'].pop('scan'), 'metadata.scan must be there'),
    (
      lambda g: g['metadata']['prompt_tokens'].append(3),
      r"prompt_tokens\[\d+\] must be str, got '3'",
    ),
    (
      lambda g: g['metadata'].update(prompt_tokens=['a']),
      "prompt_tokens must be 2 or more, got '1'",
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
      lambda g: g['nodes'][2].update(ctx_idx=99),
      r'nodes\[2\].ctx_idx must be that of one of \d tokens',
    ),
    (
      lambda g: g['nodes'].append(g['nodes'][0]),
      'node_id of nodes must be unlike every other',
    ),
    (
      lambda g: g['nodes'].append(g['nodes'][0] | {'node_id': 'other'}),
      'must be the only one of its layer, feature and ctx_idx',
    ),
    (lambda g: g.update(nodes=[], links=[]), 'nodes must be there in a layer'),
    (
      lambda g: [n.update(layer='0') for n in g['nodes']],
      'nodes must be there in a layer above 0',
    ),
    (
      lambda g: g['nodes'][20].update(layer='h_0'),
      "layer of nodes must be 'E' or a whole number",
    ),
    (lambda g: _without_logits(g, 27), 'nodes must be in layers up to 26'),
    (lambda g: g['nodes'][-1].update(clerp='Output "x"'), 'clerp must be text'),
    (
      lambda g: g['links'][0].update(source='nowhere'),
      r"links\[0\].source must be the node_id of a node, got 'nowhere'",
    ),
    (
      lambda g: g['links'][0].update(weight=float('nan')),
      r'links\[0\].weight must be int or float',
    ),
    (
      lambda g: g['links'][0].update(weight=float('inf')),
      r'links\[0\].weight must be int or float',
    ),
  ],
)
def test_what_breaks_the_readers_is_refused_and_not_written(
  graph, tmp_path, change, message
):
  broken = copy.deepcopy(graph)
  change(broken)
  with pytest.raises(ValueError, match=message) as error:
    neuronpedia.write(tmp_path / 'graph.json', broken)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())
