import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.selecting.moves import moves


@pytest.fixture(scope='module')
def model(known):
  return gated_model.make(known.config, known.params, known.means)


def _start(units, key):
  keys = list(units.sizes)
  return sum(units.sizes[name] for name in keys[: keys.index(key)])


def _all_moves(units):
  keep = np.ones(units.count, bool)
  return {tuple(move.tolist()) for move in moves(units, keep)}


@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_every_kept_unit_moves_alone_and_no_set_comes_twice(model, gates):
  units = units_lib.make(model, gates)
  keep = np.random.default_rng(0).random(units.count) < 0.5
  found = [tuple(move) for move in moves(units, keep)]
  assert len(set(found)) == len(found)
  assert {(unit,) for unit in np.flatnonzero(keep)} <= set(found)
  assert all(keep[list(move)].all() for move in found)


def test_a_head_of_a_matrix_moves_together(model):
  units = units_lib.make(model, 'edges')
  key = '0.attn.act_in->0.attn.v'
  heads = np.asarray(model.edges[key])[1] // model.config.d_head
  for head in (0, 1):
    edges = _start(units, key) + np.flatnonzero(heads == head)
    assert tuple(edges.tolist()) in _all_moves(units)


def test_what_a_head_writes_moves_together_and_a_matrix_without_heads(model):
  units = units_lib.make(model, 'edges')
  found = _all_moves(units)
  key = '0.attn.v->0.attn.resid_delta'
  heads = np.asarray(model.edges[key])[0] // model.config.d_head
  for head in np.unique(heads):
    edges = _start(units, key) + np.flatnonzero(heads == head)
    assert tuple(edges.tolist()) in found
  key = '0.mlp.act_in->0.mlp.post_act'
  start = _start(units, key)
  assert tuple(range(start, start + units.sizes[key])) in found


def test_edges_at_a_node_move_together_in_one_matrix_and_in_all(model):
  units = units_lib.make(model, 'edges')
  readers = [key for key in units.sizes if key.startswith('0.attn.act_in->')]
  channel = int(np.asarray(model.edges['0.attn.act_in->0.attn.v'])[0, 0])
  found, everywhere = _all_moves(units), ()
  for key in readers:
    read = np.flatnonzero(np.asarray(model.edges[key])[0] == channel)
    edges = tuple((_start(units, key) + read).tolist())
    assert not edges or edges in found
    everywhere += edges
  assert everywhere in found


@pytest.mark.parametrize(('tied', 'key'), [(False, 'q'), (True, 'qk')])
def test_nodes_move_by_head(model, tied, key):
  units = units_lib.make(model, 'nodes', tie_qk=tied)
  start = _start(units, f'0.attn.{key}')
  head = tuple(range(start, start + model.config.d_head))
  assert head in _all_moves(units)
