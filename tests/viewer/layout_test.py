"""Where nodes stand, and the drawing on its own."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from sparse_interp.viewer.artifacts import read_circuit
from sparse_interp.viewer.drawing import circuit_svg
from sparse_interp.viewer.layout import lay_out, place
from sparse_interp.viewer.ordering import _spread, assign_rows
from tests.viewer.fake_workdir import write_circuit

_SVG = '{http://www.w3.org/2000/svg}'


def _stored(tmp_path, n_nodes):
  write_circuit(tmp_path / 'circuit', 'task', n_nodes)
  return read_circuit(tmp_path / 'circuit')


def _circuit_layout(tmp_path, n_nodes):
  circuit = _stored(tmp_path, n_nodes)
  return circuit, lay_out(circuit.sites, circuit.nodes, circuit.edges)


@pytest.mark.parametrize('n_nodes', [4, 40, 150])
def test_no_two_nodes_nor_labels_overlap(tmp_path, n_nodes):
  _, layout = _circuit_layout(tmp_path, n_nodes)
  for i in range(len(layout.x)):
    for j in range(i):
      # A node with its label is at most 30 wide and 26 high.
      apart_x = abs(layout.x[i] - layout.x[j])
      apart_y = abs(layout.y[i] - layout.y[j])
      assert apart_x >= 30 or apart_y >= 26
  assert (layout.x > 0).all()
  assert (layout.x < layout.width).all()
  assert (layout.y < layout.height).all()


@pytest.mark.parametrize('n_nodes', [40, 150])
def test_edges_run_from_left_to_right(tmp_path, n_nodes):
  circuit, layout = _circuit_layout(tmp_path, n_nodes)
  source, target = circuit.edges.T
  assert (layout.x[source] < layout.x[target]).all()


@pytest.mark.parametrize('n_nodes', [40, 150])
def test_stream_is_straight_and_runs_through_no_node(tmp_path, n_nodes):
  circuit, layout = _circuit_layout(tmp_path, n_nodes)
  assert len(layout.stream)
  for left, right in layout.stream:
    assert circuit.nodes[left, 1] == circuit.nodes[right, 1]
    assert layout.y[left] == layout.y[right]
    between = (layout.x > layout.x[left]) & (layout.x < layout.x[right])
    assert not (between & (np.abs(layout.y - layout.y[left]) < 6)).any()


def test_stream_begins_at_a_write():
  sites = ['0.attn.act_in', '0.attn.resid_delta', '0.mlp.act_in', 'final_resid']
  nodes = np.array([[0, 5], [0, 6], [1, 5], [2, 5], [2, 6], [3, 5], [3, 6]])
  layout = lay_out(sites, nodes, np.zeros((0, 2), int))
  # Channel 6 is read twice and never written: it is the embedding there.
  assert layout.stream.tolist() == [[2, 3], [3, 5]]


def test_ordering_removes_crossings():
  # Three channels cross two blocks of three neurons each, once against their
  # order and once along it: no order of the channels alone undoes both.
  column = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
  rows = assign_rows(
    column=column,
    group=np.zeros(9, int),
    track=np.array([0, 1, 2, 3, 4, 5, 6, 7, 8]),
    in_stream=column == 0,
    edges=np.array([[0, 5], [1, 4], [2, 3], [0, 6], [1, 7], [2, 8]]),
  )
  order = np.argsort(rows[:3])
  assert (np.diff(rows[[5, 4, 3]][order]) > 0).all()
  assert (np.diff(rows[[6, 7, 8]][order]) > 0).all()


def test_spread_moves_points_least():
  np.testing.assert_allclose(_spread(np.array([0.0, 0.0, 5.0])), [-0.5, 0.5, 5])
  np.testing.assert_allclose(_spread(np.array([1.0, 2.5])), [1.0, 2.5])
  # The last pushes all that stand above it, together.
  spread = _spread(np.array([0.0, 1.0, 2.0, 2.0, -1.0]))
  np.testing.assert_allclose(spread, np.arange(5) - 1.2)


def test_sites_of_other_models_get_columns_of_their_own():
  assert place('aggregate_1').kind == 'other'
  sites = ['tokens', 'aggregate_1']
  nodes = np.array([[0, 1], [1, 0], [1, 3]])
  layout = lay_out(sites, nodes, np.array([[0, 1], [0, 2]]))
  assert [block.title for block in layout.blocks] == sites


def test_circuit_without_nodes_is_drawn_empty(tmp_path):
  write_circuit(tmp_path / 'circuit', 'task', 0)
  assert '<g class="nodes"></g>' in circuit_svg(str(tmp_path / 'circuit'))


def test_svg_alone_has_all_nodes_edges_and_its_style(tmp_path):
  circuit = _stored(tmp_path, 40)
  root = ET.fromstring(circuit_svg(str(tmp_path / 'circuit')))
  groups = root.iter(f'{_SVG}g')
  kinds = [group.get('class', '').split(' ')[0] for group in groups]
  legend_nodes, legend_edges = 7, 2
  assert kinds.count('node') == len(circuit.nodes) + legend_nodes
  assert kinds.count('edge') == len(circuit.edges) + legend_edges
  assert 'prefers-color-scheme' in root.find(f'{_SVG}style').text


def test_title_of_an_edge_says_source_target_and_weight(tmp_path):
  circuit = _stored(tmp_path, 40)
  root = ET.fromstring(circuit_svg(str(tmp_path / 'circuit')))
  edge = next(g for g in root.iter(f'{_SVG}g') if g.get('data-edge') == '0')
  source, target = circuit.edges[0]
  names = [
    f'{circuit.sites[circuit.nodes[node, 0]]}:{circuit.nodes[node, 1]}'
    for node in (source, target)
  ]
  weight = f'weight {circuit.weights[0]:+.4g}'
  title = edge.find(f'{_SVG}title').text
  assert title == f'{names[0]} → {names[1]}\n{weight}'
  sign = 'positive' if circuit.weights[0] >= 0 else 'negative'
  assert edge.get('class') == f'edge {sign}'
