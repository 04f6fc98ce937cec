"""MIB's importances: those of a circuit, and files of both kinds."""

import dataclasses
import json

import numpy as np
import pytest

from sparse_interp.interop.mib import mib, mib_graph
from sparse_interp.interop.torch_file import torch_file
from tests.interop.mib import mib_reader


@pytest.fixture
def importances(small):
  return mib.of_circuit(small.circuit)


def _names(n_layer, n_head, parallel):
  """Edges in the documented order of the published graph, one by one."""
  stream, edges = ['input'], []
  for layer in range(n_layer):
    heads = [f'a{layer}.h{head}' for head in range(n_head)]
    for source in stream:
      for head in heads:
        edges += [f'{source}->{head}<{letter}>' for letter in 'qkv']
      if parallel:
        edges.append(f'{source}->m{layer}')
    stream += heads
    if not parallel:
      edges += [f'{source}->m{layer}' for source in stream]
    stream.append(f'm{layer}')
  return edges + [f'{source}->logits' for source in stream]


@pytest.mark.slow
@pytest.mark.parametrize('parallel', [False, True])
def test_edges_are_those_of_the_published_graph(importances, parallel):
  one = dataclasses.replace(importances, parallel=parallel)
  assert set(one.edges) == set(_names(2, 4, parallel))
  assert len(set(one.edges.values())) == len(one.edges)


def test_importances_are_sums_of_weights_along_channels(small, importances):
  circuit, config = small.circuit, small.circuit.config
  sites = list(circuit.sites)
  written = {'input': dict.fromkeys(range(config.d_model), 1.0)}
  read = {'logits': {int(c): 1.0 for c in circuit.nodes['final_resid']}}
  for _, source, b, target, weight in zip(
    *(column.tolist() for column in circuit.edges), strict=True
  ):
    layer, kind, name = sites[b].split('.')
    if name == 'resid_delta':
      head = f'a{layer}.h{source // 4}' if kind == 'attn' else f'm{layer}'
      of = written.setdefault(head, {})
      of[target] = of.get(target, 0) + abs(weight)
    else:
      head = f'a{layer}.h{target // 4}<{name}>'
      of = read.setdefault(head if kind == 'attn' else f'm{layer}', {})
      of[source] = of.get(source, 0) + abs(weight)
  assert importances.edges_kept.sum() > 10
  for name, place in importances.edges.items():
    writer, reader = name.split('->')
    expected = sum(
      strength * read.get(reader, {}).get(channel, 0)
      for channel, strength in written.get(writer, {}).items()
    )
    assert importances.edge_scores[place] == pytest.approx(expected, rel=1e-5)
    assert importances.edges_kept[place] == (expected > 0)
  np.testing.assert_allclose(
    importances.neuron_scores.sum(1), importances.node_scores, rtol=1e-5
  )


def _assert_same(found, expected):
  for field in dataclasses.fields(mib.Importances):
    a, b = (getattr(one, field.name) for one in (found, expected))
    np.testing.assert_array_equal(a, b, err_msg=field.name)
    assert type(a) is type(b)


@pytest.mark.parametrize('suffix', ['json', 'pt'])
@pytest.mark.parametrize('neurons', [True, False])
def test_what_is_written_is_read_again(importances, tmp_path, suffix, neurons):
  if not neurons:
    importances = dataclasses.replace(
      importances, neurons_kept=None, neuron_scores=None
    )
  path = tmp_path / f'importances.{suffix}'
  mib.write(path, importances, neurons=neurons)
  _assert_same(mib.read(path), importances)


@pytest.mark.parametrize('suffix', ['json', 'pt'])
@pytest.mark.parametrize('level', ['edge', 'node', 'neuron'])
def test_the_track_evaluates_the_circuit_that_was_written(
  importances, tmp_path, suffix, level
):
  path = tmp_path / f'importances.{suffix}'
  mib.write(path, importances, neurons=level == 'neuron')
  graph = mib_reader.read(path)
  np.testing.assert_array_equal(graph.edges, importances.edges_kept)
  mib_reader.prune(graph)  # takes nothing away: what is there hangs together
  np.testing.assert_array_equal(graph.edges, importances.edges_kept)
  np.testing.assert_array_equal(graph.nodes, importances.nodes_kept)
  counts = {
    'edge': importances.edges_kept.sum(),
    'node': importances.nodes_kept.sum(),
    'neuron': importances.neurons_kept.sum(),
  }
  mib_reader.keep_best(graph, counts[level], level)
  np.testing.assert_array_equal(graph.nodes, importances.nodes_kept)
  if level == 'edge':
    np.testing.assert_array_equal(graph.edges, importances.edges_kept)
  if level == 'neuron':
    np.testing.assert_array_equal(graph.neurons, importances.neurons_kept)


def test_with_neurons_the_track_finds_nothing_at_other_levels(
  importances, tmp_path
):
  """Why neurons are written for their own level alone."""
  mib.write(tmp_path / 'a.pt', importances, neurons=True)
  graph = mib_reader.read(tmp_path / 'a.pt')
  mib_reader.keep_best(graph, importances.edges_kept.sum(), 'edge')
  assert not graph.edges.any()


def test_what_leads_nowhere_is_no_part_of_the_circuit(small):
  circuit = small.circuit
  sites = list(circuit.sites)
  edges = circuit.edges
  # The heads of block 1 write nothing: whatever they read leads nowhere.
  own = edges.target_site != sites.index('1.attn.resid_delta')
  less = type(edges)(*(column[own] for column in edges))
  found = mib.of_circuit(dataclasses.replace(circuit, edges=less))
  heads = [name for name in found.edges if '->a1.' in name]
  assert heads
  for name in heads:
    assert not found.edges_kept[found.edges[name]]
    assert found.edge_scores[found.edges[name]] == 0
  np.testing.assert_array_equal(found.nodes_kept, found.neurons_kept.any(1))
  assert (found.edge_scores > 0).sum() == found.edges_kept.sum() > 0


def test_node_scores_alone_are_read(importances, tmp_path):
  """As the track's attribution of nodes writes them: no edge has a score."""
  empty = dataclasses.replace(
    importances,
    edge_scores=np.zeros_like(importances.edge_scores),
    edges_kept=np.zeros_like(importances.edges_kept),
  )
  for suffix in ('json', 'pt'):
    path = tmp_path / f'nodes.{suffix}'
    mib.write(path, empty)
    read = mib.read(path)
    np.testing.assert_array_equal(read.node_scores, importances.node_scores)
    assert not read.edges_kept.any()
  document = json.loads((tmp_path / 'nodes.json').read_text())
  (tmp_path / 'nodes.json').write_text(json.dumps({**document, 'edges': {}}))
  read = mib.read(tmp_path / 'nodes.json')
  np.testing.assert_array_equal(read.node_scores, importances.node_scores)


def test_json_has_the_entries_that_the_track_reads(importances, tmp_path):
  mib.write(tmp_path / 'a.json', importances, neurons=True)
  document = json.loads((tmp_path / 'a.json').read_text())
  assert document['cfg'] == {
    'n_layers': 2,
    'n_heads': 4,
    'parallel_attn_mlp': False,
    'd_model': 16,
  }
  assert set(document['edges']) == set(_names(2, 4, False))
  for entry in document['edges'].values():
    assert set(entry) == {'score', 'in_graph'}
  assert document['nodes']['logits'] == {'in_graph': True}
  assert len(document['nodes']['a1.h2']['neurons']) == 16


def test_torch_reads_the_matrices_of_a_pt_file(importances, tmp_path):
  torch = pytest.importorskip('torch')
  mib.write(tmp_path / 'a.pt', importances)
  read = torch.load(tmp_path / 'a.pt', weights_only=True)
  assert read['edges_scores'].shape == (11, 27)
  assert read['edges_in_graph'].dtype == torch.bool
  assert read['src_nodes'][:3] == ['input', 'a0.h0', 'a0.h1']
  assert read['dst_nodes'][-2:] == ['m1', 'logits']
  assert read['nodes_in_graph'].tolist() == importances.nodes_kept.tolist()
  np.testing.assert_array_equal(
    read['edges_scores'].numpy(), importances.edge_scores
  )


def test_binary_circuits_and_partial_scores_are_read(importances, tmp_path):
  mib.write(tmp_path / 'a.json', importances)
  document = json.loads((tmp_path / 'a.json').read_text())
  for entry in document['edges'].values():
    del entry['score']
  for name in ('m0', 'a0.h1'):
    del document['nodes'][name]['score']
  del document['edges']['input->m0']
  (tmp_path / 'a.json').write_text(json.dumps(document))
  read = mib.read(tmp_path / 'a.json')
  np.testing.assert_array_equal(read.edge_scores, read.edges_kept)
  assert not read.edges_kept[importances.edges['input->m0']]
  missing = [mib_graph.writers(2, 4).index(name) for name in ('m0', 'a0.h1')]
  assert np.flatnonzero(np.isnan(read.node_scores)).tolist() == sorted(missing)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda d: d.pop('edges'), "have the entry 'edges'"),
    (lambda d: d['cfg'].update(n_layers='2'), r'positive cfg\.n_layers'),
    (lambda d: d['cfg'].update(n_layers=10**6), 'with at most 100000000 edges'),
    (lambda d: d['cfg'].update(d_model=10**9), r'positive cfg\.d_model'),
    (lambda d: d.update(nodes=[]), 'have an object as nodes'),
    (
      lambda d: d['edges'].update({'m1->m0': {'in_graph': True}}),
      "name edges of its model, not 'm1->m0'",
    ),
    (lambda d: d['nodes'].update(m0={}), 'say of m0 whether it is in_graph'),
    (
      lambda d: d['edges']['input->m0'].update(score='1'),
      "have numbers for input->m0, not '1'",
    ),
    (
      lambda d: d['edges']['input->m0'].update(score=10**400),
      "have numbers for input->m0, not '1000",
    ),
    (lambda d: d['nodes']['m0']['neurons'].pop(), 'give 16 neurons of m0'),
  ],
)
def test_json_of_another_form_is_refused(
  importances, tmp_path, change, message
):
  path = tmp_path / 'a.json'
  mib.write(path, importances, neurons=True)
  document = json.loads(path.read_text())
  change(document)
  path.write_text(json.dumps(document))
  with pytest.raises(ValueError, match=message) as error:
    mib.read(path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['', '{"cfg"', '[' * 100_000, '3', '[]'])
def test_damaged_json_is_refused(tmp_path, text):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(ValueError, match=r'a\.json must'):
    mib.read(tmp_path / 'a.json')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda d: d.pop('nodes_in_graph'), "have the entry 'nodes_in_graph'"),
    (
      lambda d: d.update(edges_scores=np.zeros((2, 2), np.float32)),
      r'hold edges_scores as a tensor of shape \(11, 27\)',
    ),
    (lambda d: d.update(nodes_scores=[1.0] * 11), 'hold nodes_scores as a'),
  ],
)
def test_pt_files_of_another_form_are_refused(
  importances, tmp_path, change, message
):
  path = tmp_path / 'a.pt'
  mib.write(path, importances)
  document = dict(torch_file.read(path))
  change(document)
  torch_file.write(tmp_path / 'b.pt', document)
  with pytest.raises(ValueError, match=message):
    mib.read(tmp_path / 'b.pt')


def test_other_endings_are_refused(importances, tmp_path):
  with pytest.raises(ValueError, match=r'must end in \.json or \.pt'):
    mib.write(tmp_path / 'a.pkl', importances)
