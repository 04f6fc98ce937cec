"""Circuits in the format of the MIB circuit track (arXiv 2504.13151).

A submission scores the edges between components, and may score nodes and
neurons, see `mib_graph`. A file is JSON, or a torch file of the same as
matrices. What has no score has nan; where a file has no scores of edges, they
are 1 for what is kept and 0 for the rest.

Source: `circuit_loading.py` of github.com/hannamw/MIB-circuit-track, whose
commands read what is written here.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparse_interp.files import json_text, whole_file
from sparse_interp.interop.mib.mib_graph import (
  Importances,
  of_circuit,
  possible_edges,
  readers,
  writers,
)
from sparse_interp.interop.torch_file import torch_file

__all__ = ['Importances', 'of_circuit', 'read', 'write']

# Edges of the largest graph that is read; Llama 3.1 8B has 3 million.
_MOST_EDGES = 10**8
_MOST_BYTES = 256 * 2**20
_LARGEST_SCORE = float(np.finfo(np.float32).max)
_SIZES = ('n_layers', 'n_heads', 'd_model')


def write(
  path: str | os.PathLike, importances: Importances, neurons: bool = False
) -> None:
  """Writes a submission that the track's commands read.

  Args:
    path: ends in .json or .pt.
    importances: e.g. from `of_circuit`.
    neurons: whether to write neurons, for `--level neuron` alone: at the levels
      of edges and nodes the commands switch off all neurons of a file that has
      some, and with them every node.

  Raises:
    ValueError: the path ends otherwise.
  """
  path, one = pathlib.Path(path), importances
  if not neurons:
    one = dataclasses.replace(one, neurons_kept=None, neuron_scores=None)
  config = {
    'n_layers': one.n_layer,
    'n_heads': one.n_head,
    'parallel_attn_mlp': one.parallel,
    'd_model': one.d_model,
  }
  if path.suffix == '.json':
    document = {'cfg': config, **_named(one)}
    with whole_file.writing(path) as part:
      part.write_text(json.dumps(document))
    return
  _check_suffix(path)
  data = {
    'cfg': config,
    'src_nodes': writers(one.n_layer, one.n_head),
    'dst_nodes': readers(one.n_layer, one.n_head),
  }
  for field, key in _MATRICES.items():
    if getattr(one, field) is not None:
      data[key] = np.asarray(getattr(one, field))
  torch_file.write(path, data)


_MATRICES = {
  'edge_scores': 'edges_scores',
  'edges_kept': 'edges_in_graph',
  'nodes_kept': 'nodes_in_graph',
  'node_scores': 'nodes_scores',
  'neurons_kept': 'neurons_in_graph',
  'neuron_scores': 'neurons_scores',
}


def _check_suffix(path):
  if path.suffix != '.pt':
    raise ValueError(
      f'path of MIB importances must end in .json or .pt, got {path}; rename '
      'it.'
    )


def _named(one: Importances) -> dict[str, Any]:
  nodes: dict[str, dict[str, Any]] = {}
  for i, name in enumerate(writers(one.n_layer, one.n_head)):
    nodes[name] = {'in_graph': bool(one.nodes_kept[i])}
    if one.node_scores is not None:
      nodes[name]['score'] = float(one.node_scores[i])
    if one.neurons_kept is not None:
      nodes[name]['neurons'] = one.neurons_kept[i].tolist()
    if one.neuron_scores is not None:
      nodes[name]['neurons_scores'] = one.neuron_scores[i].tolist()
  nodes['logits'] = {'in_graph': True}
  edges = {
    name: {
      'score': float(one.edge_scores[place]),
      'in_graph': bool(one.edges_kept[place]),
    }
    for name, place in one.edges.items()
  }
  return {'nodes': nodes, 'edges': edges}


def read(path: str | os.PathLike) -> Importances:
  """Reads a submission, binary or with scores.

  Args:
    path: ends in .json or .pt.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not such a file, or names what its model lacks.
  """
  path = pathlib.Path(path)
  if path.suffix != '.json':
    _check_suffix(path)
    return _of_matrices(path, torch_file.read(path))
  document = json_text.read(path, 'get it again', _MOST_BYTES)
  return _of_names(path, document)


def _wrong(path: Any, constraint: str) -> ValueError:
  constraint = ' '.join(constraint.split())[:150]
  return ValueError(
    f"MIB file {path} must {constraint}; write it again with the track's "
    'tools or sparse_interp.interop.mib.write.'
  )


def _sizes(path, document, keys):
  for key in ('cfg', *keys):
    if not isinstance(document, Mapping) or key not in document:
      raise _wrong(path, f'have the entry {key!r}')
  config = document['cfg']
  if not isinstance(config, Mapping):
    raise _wrong(path, 'have an object as cfg')
  for field in _SIZES:
    size = config.get(field)
    if type(size) is not int or not 1 <= size <= 10**6:
      raise _wrong(path, f'have a positive cfg.{field}, not {size!r}')
  n_layer, n_head, d_model = (config[field] for field in _SIZES)
  total = 1 + n_layer * (n_head + 1)
  if 3 * total**2 > _MOST_EDGES or total * d_model > _MOST_EDGES:
    raise _wrong(path, f'be of a model with at most {_MOST_EDGES} edges')
  return n_layer, n_head, d_model, bool(config.get('parallel_attn_mlp', False))


def _of_matrices(path, document):
  n_layer, n_head, d_model, parallel = _sizes(
    path, document, ('edges_scores', 'edges_in_graph', 'nodes_in_graph')
  )
  total = 1 + n_layer * (n_head + 1)
  width = 1 + n_layer * (3 * n_head + 1)
  shapes = {'edge': (total, width), 'node': (total,), 'neur': (total, d_model)}
  found: dict[str, Any] = {}
  for field, key in _MATRICES.items():
    array, shape = document.get(key), shapes[field[:4]]
    if array is None:
      found[field] = None
      continue
    if not isinstance(array, np.ndarray) or array.shape != shape:
      raise _wrong(path, f'hold {key} as a tensor of shape {shape}')
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
      raise _wrong(path, f'hold {key} as numbers')
    kind = bool if field.endswith('kept') else np.float32
    found[field] = array.astype(kind)
  return Importances(n_layer, n_head, d_model, parallel, **found)


def _of_names(path, document):
  sizes = _sizes(path, document, ('nodes', 'edges'))
  n_layer, n_head, _, parallel = sizes
  names = writers(n_layer, n_head)
  possible = possible_edges(n_layer, n_head, parallel)
  empty = Importances(
    *sizes,
    edge_scores=np.zeros(possible.shape, np.float32),
    edges_kept=np.zeros(possible.shape, bool),
    nodes_kept=np.zeros(len(names), bool),
  )
  places = empty.edges
  for kind, known in (('nodes', {*names, 'logits'}), ('edges', places)):
    entries = document[kind]
    if not isinstance(entries, Mapping):
      raise _wrong(path, f'have an object as {kind}')
    for name, entry in entries.items():
      if name not in known:
        raise _wrong(path, f'name {kind} of its model, not {name[:40]!r}')
      if (
        not isinstance(entry, Mapping)
        or type(entry.get('in_graph')) is not bool
      ):
        raise _wrong(path, f'say of {name} whether it is in_graph')
  for name, entry in document['edges'].items():
    empty.edges_kept[places[name]] = entry['in_graph']
    score = entry.get('score', float(entry['in_graph']))
    empty.edge_scores[places[name]] = _number(path, name, score)
  return _with_nodes(path, empty, names, document['nodes'])


def _with_nodes(path, one, names, entries):
  found = {
    'node_scores': np.full(len(names), np.nan, np.float32),
    'neurons_kept': np.zeros((len(names), one.d_model), bool),
    'neuron_scores': np.full((len(names), one.d_model), np.nan, np.float32),
  }
  keys = dict(zip(found, ('score', 'neurons', 'neurons_scores'), strict=True))
  seen = set()
  for i, name in enumerate(names):
    entry = entries.get(name, {'in_graph': False})
    one.nodes_kept[i] = entry['in_graph']
    for field, key in keys.items():
      if key not in entry:
        continue
      seen.add(field)
      values = entry[key]
      if field == 'node_scores':
        found[field][i] = _number(path, name, values)
        continue
      if not isinstance(values, list) or len(values) != one.d_model:
        raise _wrong(path, f'give {one.d_model} {key} of {name}')
      found[field][i] = [_number(path, name, value) for value in values]
  return dataclasses.replace(
    one, **{field: found[field] for field in keys if field in seen}
  )


def _number(path, name, value):
  if not isinstance(value, int | float) or abs(value) > _LARGEST_SCORE:
    raise _wrong(path, f'have numbers for {name}, not {str(value)[:40]!r}')
  return value
