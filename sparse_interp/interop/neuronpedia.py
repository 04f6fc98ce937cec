"""Circuits as attribution graphs, for Neuronpedia and Anthropic's frontend.

Such a graph shows one prompt. Nodes of a circuit stand at a position only
through their activations, so a graph shows what the circuit does on one of its
examples: each node at the token where it is strongest. Links are the weights of
the circuit, and with weight 1 the residual stream, from each write of a channel
to the reads that follow it. The prompt is a row of embedding nodes, which no
link leaves, since a circuit does not prune embeddings.

`layer` numbers the sites in the order of the forward pass, so that all links
lead upwards; `feature` is the channel; `clerp` says both in our words.

Source of the format: graph-schema.json (version 1.0.0) of
github.com/hijohnnylin/neuronpedia.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import sparse_interp
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.files import whole_file

_TEXT, _WHOLE, _NUMBER = (str,), (int,), (int, float)
# What the schema requires, and the types it allows; the second list of a
# section is optional.
_FIELDS = {
  'metadata': (
    {'slug': _TEXT, 'scan': _TEXT, 'prompt_tokens': (list,), 'prompt': _TEXT},
    {
      'feature_details': (dict,),
      'node_threshold': _NUMBER,
      'info': (dict,),
      'generation_settings': (dict,),
      'pruning_settings': (dict,),
    },
  ),
  'qParams': (
    {},
    {
      'pinnedIds': (list,),
      'supernodes': (list,),
      'linkType': _TEXT,
      'clickedId': _TEXT,
      'sg_pos': _TEXT,
    },
  ),
  'nodes': (
    {
      'node_id': _TEXT,
      'feature': (int, type(None)),
      'layer': (str, int),
      'ctx_idx': _WHOLE,
      'feature_type': _TEXT,
      'jsNodeId': _TEXT,
      'clerp': _TEXT,
    },
    {'influence': (*_NUMBER, type(None)), 'activation': (*_NUMBER, type(None))},
  ),
  'links': ({'source': _TEXT, 'target': _TEXT, 'weight': _NUMBER}, {}),
}


def make_graph(
  circuit: Circuit, slug: str, scan: str, example: int = 0
) -> dict[str, Any]:
  """The graph of a circuit on one of its examples.

  Args:
    circuit: with at least one example.
    slug: name of the graph, unique for its owner on Neuronpedia.
    scan: name of the model there.
    example: index into `circuit.examples`.

  Raises:
    ValueError: there is no such example.
  """
  if not 0 <= example < len(circuit.examples):
    raise ValueError(
      f'example must be one of the {len(circuit.examples)} of the circuit, '
      f'got {example}; choose a smaller one.'
    )
  shown = circuit.examples[example]
  pieces = [str(piece) for piece in shown['pieces']]
  nodes = [_embedding(i, piece) for i, piece in enumerate(pieces)]
  names = {}
  for layer, site in enumerate(circuit.sites):
    values = circuit.activations[site][example, : len(pieces)]
    for column, channel in enumerate(circuit.nodes.get(site, ())):
      strongest = int(np.argmax(np.abs(values[:, column])))
      node = _node(circuit, site, layer, int(channel), strongest)
      node['activation'] = float(values[strongest, column])
      names[site, int(channel)] = node['node_id']
      nodes.append(node)
  return {
    'metadata': {
      'slug': slug,
      'scan': scan,
      'prompt_tokens': pieces,
      'prompt': ''.join(pieces),
      'info': {
        'description': _description(circuit, shown),
        'generator': {
          'name': 'sparse_interp',
          'version': sparse_interp.__version__,
        },
      },
      'generation_settings': {'sites': list(circuit.sites)},
      'pruning_settings': circuit.prune_config,
    },
    'qParams': {'pinnedIds': [], 'supernodes': [], 'linkType': 'both'},
    'nodes': nodes,
    'links': [*_weights(circuit, names), *_stream(circuit, names)],
  }


def write(path: str | os.PathLike, graph: Mapping[str, Any]) -> None:
  """Writes a graph that keeps to the schema.

  Args:
    path: of the file.
    graph: e.g. from `make_graph`.

  Raises:
    ValueError: it does not; see `check`.
  """
  check(graph)
  with whole_file.writing(path) as part:
    part.write_text(json.dumps(graph, allow_nan=False), encoding='utf-8')


def check(graph: Mapping[str, Any]) -> None:
  """Compares a graph with the schema, and links with nodes.

  Raises:
    ValueError: a field is missing or of another type, two nodes have one id,
      or a link ends at no node.
  """
  for section, (required, optional) in _FIELDS.items():
    several = section in ('nodes', 'links')
    kind = list if several else dict
    content = graph.get(section) if isinstance(graph, Mapping) else None
    if not isinstance(content, kind):
      raise _wrong(section, f'{kind.__name__}', content)
    for i, entry in enumerate(content if several else [content]):
      where = f'{section}[{i}]' if several else section
      _check_fields(where, entry, required, optional)
  for i, token in enumerate(graph['metadata']['prompt_tokens']):
    if not isinstance(token, str):
      raise _wrong(f'metadata.prompt_tokens[{i}]', 'str', token)
  known = set()
  for node in graph['nodes']:
    if node['node_id'] in known:
      raise _wrong('node_id of nodes', 'unlike every other', node['node_id'])
    known.add(node['node_id'])
  for i, link in enumerate(graph['links']):
    for end in ('source', 'target'):
      if link[end] not in known:
        raise _wrong(f'links[{i}].{end}', 'the node_id of a node', link[end])


def _check_fields(where, entry, required, optional):
  if not isinstance(entry, dict):
    raise _wrong(where, 'dict', entry)
  for field, kinds in {**required, **optional}.items():
    if field not in entry:
      if field in required:
        raise _wrong(f'{where}.{field}', 'there', 'nothing')
      continue
    value = entry[field]
    # In JSON, true is no number; NaN is nothing at all.
    bad = isinstance(value, bool) or value != value
    if bad or not isinstance(value, kinds):
      names = ' or '.join(kind.__name__ for kind in kinds)
      raise _wrong(f'{where}.{field}', names, value)


def _wrong(field, constraint, value):
  return ValueError(
    f'graph: {field} must be {constraint}, got {str(value)[:60]!r}; make the '
    'graph with sparse_interp.interop.neuronpedia.make_graph.'
  )


def _embedding(position, piece):
  return {
    'node_id': f'E_0_{position}',
    'feature': 0,
    'layer': 'E',
    'ctx_idx': position,
    'feature_type': 'embedding',
    'jsNodeId': f'E_0-{position}',
    'clerp': f'token {piece!r}',
  }


def _node(circuit, site, layer, channel, position):
  label = f'{site}:{channel}'
  if site.split('.')[-1] in ('q', 'k', 'v'):
    label = f'{label} (head {channel // circuit.config.d_head})'
  return {
    'node_id': f'{layer}_{channel}_{position}',
    'feature': channel,
    'layer': str(layer),
    'ctx_idx': position,
    # Their word for what is neither token, logit nor error.
    'feature_type': 'cross layer transcoder',
    'jsNodeId': f'{layer}_{channel}-{position}',
    'clerp': label,
  }


def _description(circuit, shown):
  return (
    f'Circuit of {circuit.task}: {circuit.description}. Answer '
    f'{shown["answer"]!r} against {shown["other_answer"]!r}. Links are '
    'weights; layers number the sites of the forward pass.'
  )


def _weights(circuit, names):
  sites = list(circuit.sites)
  for source_site, source, target_site, target, weight in zip(
    *(column.tolist() for column in circuit.edges), strict=True
  ):
    yield {
      'source': names[sites[source_site], source],
      'target': names[sites[target_site], target],
      'weight': weight,
    }


def _stream(circuit, names):
  """Links from each write of a residual channel to the reads after it."""
  writes = {}
  for site in circuit.sites:
    for channel in map(int, circuit.nodes.get(site, ())):
      if site.endswith('resid_delta'):
        writes.setdefault(channel, []).append(site)
      elif site.endswith('act_in') or site == 'final_resid':
        target = names[site, channel]
        for write in writes.get(channel, ()):
          if circuit.config.parallel_residual and _same_block(write, site):
            continue
          source = names[write, channel]
          yield {'source': source, 'target': target, 'weight': 1.0}


def _same_block(write, read):
  return write.split('.')[0] == read.split('.')[0]
