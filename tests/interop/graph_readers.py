"""What readers of attribution graphs compute before they draw, redone.

Neuronpedia's webapp as of ebb8426f (`formatCLTGraphData`, and the scales of its
link graph) and circuit-tracer as of d797c82 (`formatData`, `initCgLinkGraph`).
"""


def _number(layer):
  """JavaScript's +layer, with None for what is no number."""
  try:
    return float(layer)
  except ValueError:
    return None


def _highest(graph):
  layers = [
    _number(node['layer'])
    for node in graph['nodes']
    if node['feature_type'] != 'logit'
  ]
  return max((layer for layer in layers if layer is not None), default=None)


def _layers(graph):
  """{node_id: layer as the readers set it}; 'E' is None."""
  highest = _highest(graph)
  layers = {}
  for node in graph['nodes']:
    layers[node['node_id']] = _number(node['layer'])
    if node['feature_type'] == 'logit':
      # Both look for the probability of a logit in its label.
      float(node['clerp'].split('(p=')[1].split(')')[0])
      layers[node['node_id']] = highest + 1
  return layers


def neuronpedia_rows(graph, model_layers):
  """{node_id: row from the bottom}, None where the scale has no such row."""
  if not _highest(graph):
    raise LookupError('No layer found')
  kinds = {node['node_id']: node['feature_type'] for node in graph['nodes']}
  rows = {}
  for name, layer in _layers(graph).items():
    row = 0 if layer is None else int(layer)
    row += kinds[name] != 'embedding'
    rows[name] = row if row < model_layers + 2 else None
  return rows


def circuit_tracer_rows(graph):
  """The same for circuit-tracer, which counts layers by the logits' one."""
  length = len(graph['metadata']['prompt_tokens'])
  layers = _layers(graph)
  has_logit = any(n['feature_type'] == 'logit' for n in graph['nodes'])
  count = (int(_highest(graph)) + 1 if has_logit else 26) + 2
  groups = {}
  for node in graph['nodes']:
    feature = f'{node["layer"]}_{node["feature"]}_{node["ctx_idx"]}'
    groups.setdefault(feature, []).append(node['node_id'])
  rows = {}
  for names in groups.values():
    for name in names:
      layer = layers[name]
      row = 0 if layer is None else int(layer) + 1
      # What stands on more than two thirds of the tokens is left out.
      drawn = row < count and len(names) <= length * 2 / 3
      rows[name] = row if drawn else None
  return rows


def unpair(feature):
  """(layer, index) of a feature, as Neuronpedia takes Cantor's pairs apart."""
  total = int(((8 * feature + 1) ** 0.5 - 1) // 2)
  index = feature - total * (total + 1) // 2
  return total - index, index
