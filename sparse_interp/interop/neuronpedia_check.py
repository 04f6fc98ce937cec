"""What Neuronpedia and circuit-tracer ask of an attribution graph.

Beyond the schema: names that the upload takes, and all that their scripts do
with layers, ids and labels before they draw, so that every node gets a row.
"""

import re
from collections.abc import Mapping
from typing import Any

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

# The highest layer that circuit-tracer draws in a graph without logits.
_MOST_LAYERS = 26


def check(graph: Mapping[str, Any]) -> None:
  """Compares a graph with the schema and with what the readers make of it.

  Raises:
    ValueError: a field is missing or of another type, a name would be refused,
      nodes share an id, a link ends at no node, or a node has no place in the
      drawing.
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
  _check_metadata(graph['metadata'])
  known = set()
  for node in graph['nodes']:
    if node['node_id'] in known:
      raise _wrong('node_id of nodes', 'unlike every other', node['node_id'])
    known.add(node['node_id'])
  _check_rows(graph['nodes'], len(graph['metadata']['prompt_tokens']))
  for i, link in enumerate(graph['links']):
    for end in ('source', 'target'):
      if link[end] not in known:
        raise _wrong(f'links[{i}].{end}', 'the node_id of a node', link[end])


def check_name(field: str, name: str) -> None:
  """Raises ValueError for a slug or scan that Neuronpedia refuses."""
  if not re.fullmatch('[a-zA-Z0-9_.-]+', name):
    remedy = re.sub('[^a-zA-Z0-9_.-]+', '-', name).strip('-') or 'my-circuit'
    raise ValueError(
      f'{field} must be letters from a to z, digits, "_", "." and "-" alone, '
      f'got {name[:60]!r}; choose e.g. {remedy[:60]!r}.'
    )


def _check_fields(where, entry, required, optional):
  if not isinstance(entry, dict):
    raise _wrong(where, 'dict', entry)
  for field, kinds in {**required, **optional}.items():
    if field not in entry:
      if field in required:
        raise _wrong(f'{where}.{field}', 'there', 'nothing')
      continue
    value = entry[field]
    # In JSON, true is no number, and neither is what is not finite.
    bad = isinstance(value, bool)
    bad |= isinstance(value, float) and not abs(value) < float('inf')
    if bad or not isinstance(value, kinds):
      names = ' or '.join(kind.__name__ for kind in kinds)
      raise _wrong(f'{where}.{field}', names, value)


def _check_metadata(metadata):
  check_name('slug', metadata['slug'])
  check_name('scan', metadata['scan'])
  for i, token in enumerate(metadata['prompt_tokens']):
    if not isinstance(token, str):
      raise _wrong(f'metadata.prompt_tokens[{i}]', 'str', token)
  if len(metadata['prompt_tokens']) < 2:
    # circuit-tracer leaves out what is there on two thirds of the tokens.
    raise _wrong(
      'metadata.prompt_tokens', '2 or more', len(metadata['prompt_tokens'])
    )


def _check_rows(nodes, length):
  """Redoes what the readers compute before they draw."""
  features = [node for node in nodes if node['feature_type'] != 'logit']
  layers = [_layer(node) for node in features]
  highest = max((layer for layer in layers if layer is not None), default=0)
  if not highest:
    raise _wrong('nodes', 'there in a layer above 0', 'no such node')
  if len(features) == len(nodes) and highest > _MOST_LAYERS:
    raise _wrong('nodes', f'in layers up to {_MOST_LAYERS}', highest)
  known = set()
  for i, node in enumerate(nodes):
    if not 0 <= node['ctx_idx'] < length:
      raise _wrong(
        f'nodes[{i}].ctx_idx',
        f'that of one of {length} tokens',
        node['ctx_idx'],
      )
    if node['feature_type'] == 'logit' and node['clerp']:
      if not re.match(r'[\d.]+\)', node['clerp'].partition('(p=')[2]):
        raise _wrong(f'nodes[{i}].clerp', "text and '(p=0.5)'", node['clerp'])
    # The readers give errors of each kind ids of their own.
    kind = node['feature_type']
    kind = kind if 'error' in kind else 'feature'
    feature = str(node['layer']), node['feature'], node['ctx_idx'], kind
    if feature in known:
      raise _wrong(
        f'nodes[{i}]', 'the only one of its layer, feature and ctx_idx', feature
      )
    known.add(feature)


def _layer(node):
  """The number of a layer; None for the row of the prompt."""
  layer = str(node['layer'])
  if layer == 'E':
    return None
  if not re.fullmatch('[0-9]{1,6}', layer):
    raise _wrong('layer of nodes', "'E' or a whole number", layer)
  return int(layer)


def _wrong(field, constraint, value):
  return ValueError(
    f'graph: {field} must be {constraint}, got {str(value)[:60]!r}; make the '
    'graph with sparse_interp.interop.neuronpedia.make_graph.'
  )
