"""What MIB's commands do with a file before they evaluate it, redone in numpy.

`Graph` of github.com/hannamw/EAP-IG as of 795f560: `from_json`, `from_pt`,
`apply_topn` and `prune`, which `run_evaluation.py` of the track calls with the
level that it is given.
"""

import json
import pathlib
import types

import numpy as np

from sparse_interp.interop.torch_file import torch_file


def _names(config):
  heads, writers, readers = range(config['n_heads']), ['input'], []
  for layer in range(config['n_layers']):
    own = [f'a{layer}.h{head}' for head in heads]
    writers += [*own, f'm{layer}']
    readers += [f'{one}<{letter}>' for letter in 'qkv' for one in own]
    readers.append(f'm{layer}')
  return writers, [*readers, 'logits']


def read(path):
  """The graph of a file: masks and scores, None for what it does not hold."""
  if pathlib.Path(path).suffix == '.pt':
    found = torch_file.read(path)
    return types.SimpleNamespace(
      names=_names(found['cfg']),
      edges=found['edges_in_graph'],
      scores=found['edges_scores'],
      nodes=found['nodes_in_graph'],
      node_scores=found.get('nodes_scores'),
      neurons=found.get('neurons_in_graph'),
      neuron_scores=found.get('neurons_scores'),
    )
  document = json.loads(pathlib.Path(path).read_text())
  writers, readers = _names(document['cfg'])
  shape = len(writers), len(readers)
  graph = types.SimpleNamespace(
    names=(writers, readers),
    edges=np.zeros(shape, bool),
    scores=np.zeros(shape),
    nodes=np.zeros(shape[0], bool),
    node_scores=np.full(shape[0], np.nan),
    neurons=np.zeros((shape[0], document['cfg']['d_model']), bool),
    neuron_scores=np.full((shape[0], document['cfg']['d_model']), np.nan),
  )
  seen = set()
  for name, entry in document['nodes'].items():
    if name == 'logits':
      continue
    seen |= set(entry)
    row = writers.index(name)
    graph.nodes[row] = entry['in_graph']
    graph.node_scores[row] = entry.get('score', np.nan)
    graph.neurons[row] = entry.get('neurons', False)
    graph.neuron_scores[row] = entry.get('neurons_scores', np.nan)
  fields = {'score': 'node_scores', 'neurons': 'neurons'}
  for key, field in {**fields, 'neurons_scores': 'neuron_scores'}.items():
    if key not in seen:
      setattr(graph, field, None)
  for name, entry in document['edges'].items():
    writer, reader = name.split('->')
    place = writers.index(writer), readers.index(reader)
    graph.scores[place] = entry['score']
    graph.edges[place] = entry['in_graph']
  return graph


def keep_best(graph, count, level):
  """Leaves the best edges, nodes or neurons, and what hangs together."""
  writers, readers = graph.names
  graph.edges = np.zeros_like(graph.edges)
  graph.nodes = np.zeros_like(graph.nodes)
  if graph.neurons is not None:
    graph.neurons = np.zeros_like(graph.neurons)

  def best(scores):
    scored = ~np.isnan(scores)
    order = np.argsort(-np.where(scored, scores, -np.inf), axis=None)
    kept = np.zeros(scores.size, bool)
    kept[order[:count]] = True
    return kept.reshape(scores.shape) | ~scored

  if level == 'edge':
    possible = np.zeros(graph.edges.shape)
    for j, reader in enumerate(readers):
      for i, writer in enumerate(writers):
        # A writer comes before a reader if its stage does.
        possible[i, j] = 0 if _stage(writer) < _stage(reader) else -np.inf
    graph.edges = best(abs(graph.scores) + possible) & np.isfinite(possible)
    graph.nodes = graph.edges.any(axis=1)
  else:
    if level == 'neuron':
      graph.neurons = best(abs(graph.neuron_scores))
      graph.nodes = graph.neurons.any(axis=1)
    else:
      graph.nodes = best(abs(graph.node_scores))
    graph.edges |= graph.nodes[:, None]
  prune(graph)


def _stage(name):
  if name in ('input', 'logits'):
    return -1 if name == 'input' else 10**9
  layer = int(name[1:].partition('.')[0])
  return 2 * layer + (name[0] == 'm')


def prune(graph):
  """Removes nodes without neurons, then what has no edges on one side."""
  writers, readers = graph.names
  owner = [reader.partition('<')[0] for reader in readers]
  if graph.neurons is not None:
    graph.nodes = graph.nodes & graph.neurons.any(axis=1)
    graph.edges = graph.edges & graph.nodes[:, None]
  while True:
    into = {owner[j] for j in np.flatnonzero(graph.edges.any(axis=0))}
    nodes = graph.edges.any(axis=1) & [
      name == 'input' or name in into for name in writers
    ]
    alive = {writers[i] for i in np.flatnonzero(nodes)} | {'logits'}
    edges = graph.edges & nodes[:, None] & [one in alive for one in owner]
    if (edges == graph.edges).all() and (nodes == graph.nodes).all():
      return
    graph.edges, graph.nodes = edges, nodes
