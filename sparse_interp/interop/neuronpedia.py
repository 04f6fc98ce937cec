"""Circuits as attribution graphs, for Neuronpedia and Anthropic's frontend.

Such a graph shows one prompt. Nodes of a circuit stand at a position only
through their activations, so a graph shows what the circuit does on one of its
examples: each node at the token where it is strongest. Links are the weights of
the circuit, and with weight 1 the residual stream, from each write of a channel
to the reads that follow it. The prompt is a row of embedding nodes, and the two
answers stand at its last token with the probability that the circuit gives
them; no link joins these to the rest, since a circuit prunes neither embeddings
nor unembedding.

The readers draw one row for each layer of the model, so `layer` is the block a
site belongs to, and all sites of a block share its row. The nodes of a block
are counted through its sites: that number, the index, is in `node_id`
(`layer_index_position`), and `feature` is the pair of layer and index as one
number, as the readers pair them. `clerp` says site and channel in our words.

Source of the format: graph-schema.json (version 1.0.0) of
github.com/hijohnnylin/neuronpedia, and the frontends there and in
github.com/safety-research/circuit-tracer.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import sparse_interp
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.files import whole_file
from sparse_interp.interop.neuronpedia_check import check, check_name

__all__ = ['check', 'make_graph', 'write']

# Neuronpedia takes uploads of these sizes, in bytes.
_SMALLEST, _LARGEST = 1024, 100 * 1024**2


def make_graph(
  circuit: Circuit, slug: str, scan: str, example: int = 0
) -> dict[str, Any]:
  """The graph of a circuit on one of its examples.

  Args:
    circuit: with at least one node and one example.
    slug: name of the graph, unique for its owner on Neuronpedia.
    scan: name of the model there.
    example: index into `circuit.examples`.

  Raises:
    ValueError: there is no such example, the circuit has no node, or a name
      has characters that Neuronpedia refuses.
  """
  check_name('slug', slug)
  check_name('scan', scan)
  if not 0 <= example < len(circuit.examples):
    raise ValueError(
      f'example must be one of the {len(circuit.examples)} of the circuit, '
      f'got {example}; choose a smaller one.'
    )
  if not circuit.node_count:
    raise ValueError(
      f'circuit must have a node to be drawn, got none in {circuit.task}; the '
      'readers of such graphs break on an empty one: choose another circuit.'
    )
  shown = circuit.examples[example]
  pieces = [str(piece) for piece in shown['pieces']]
  nodes, names = _nodes(circuit, example, len(pieces))
  return {
    'metadata': {
      'slug': slug,
      'scan': scan,
      # circuit-tracer looks for it where scan begins with custom-.
      'transcoder_list': [],
      'prompt_tokens': pieces,
      'prompt': ''.join(pieces),
      'info': {
        'description': _description(circuit, shown),
        'generator': {
          'name': 'sparse_interp',
          'version': sparse_interp.__version__,
        },
      },
      'generation_settings': {
        'layers': circuit.config.n_layer,
        'sites': {
          site: {'layer': layer, 'first_index': first}
          for site, (layer, first) in _places(circuit).items()
        },
      },
      'pruning_settings': circuit.prune_config,
    },
    'qParams': {
      'pinnedIds': [],
      'supernodes': [],
      'linkType': 'both',
      'clickedId': '',
      'sg_pos': '',
    },
    'nodes': [
      *_prompt(circuit, example, pieces),
      *nodes,
      *_answers(circuit, nodes, shown),
    ],
    'links': [*_weights(circuit, names), *_stream(circuit, names)],
  }


def write(path: str | os.PathLike, graph: Mapping[str, Any]) -> None:
  """Writes a graph that the readers can draw.

  Args:
    path: of the file.
    graph: e.g. from `make_graph`.

  Raises:
    ValueError: they cannot, see `check`, or it is too large for Neuronpedia.
  """
  check(graph)
  # Spaces at the end are JSON, too.
  text = json.dumps(graph, allow_nan=False).ljust(_SMALLEST)
  if len(text) > _LARGEST:
    raise ValueError(
      f'graph: its file must have at most {_LARGEST:,} bytes for Neuronpedia, '
      f'got {len(text):,}; choose a circuit with fewer edges.'
    )
  with whole_file.writing(path) as part:
    part.write_text(text, encoding='utf-8')


def _places(circuit) -> dict[str, tuple[int, int]]:
  """{site: its layer, and the index there of its first channel}.

  The stream that the unembedding reads is in the last block, above which the
  readers put the answers. A model of one block gives it a layer of its own,
  since a graph whose highest layer is 0 counts as empty.
  """
  places, widths = {}, {}
  for site, width in circuit.sites.items():
    layer = max(circuit.config.n_layer - 1, 1)
    if site != 'final_resid':
      layer = int(site.split('.')[0])
    places[site] = layer, widths.get(layer, 0)
    widths[layer] = widths.get(layer, 0) + width
  return places


def _paired(layer: int, index: int) -> int:
  """Cantor's number of a pair, by which the readers know a feature."""
  return (layer + index) * (layer + index + 1) // 2 + index


def _node(layer, index, position, kind, label):
  return {
    'node_id': f'{layer}_{index}_{position}',
    'feature': _paired(layer, index),
    'layer': str(layer),
    'ctx_idx': position,
    'feature_type': kind,
    'jsNodeId': f'{layer}_{index}-{position}',
    'clerp': label,
  }


def _prompt(circuit, example, pieces):
  for position, piece in enumerate(pieces):
    token = int(circuit.example_tokens[example, position])
    yield {
      'node_id': f'E_{token}_{position}',
      'feature': position,
      'layer': 'E',
      'ctx_idx': position,
      'feature_type': 'embedding',
      'jsNodeId': f'E_{token}-{position}',
      'clerp': f'token {piece!r}',
    }


def _nodes(circuit, example, length):
  """Nodes of the circuit, and {(site, channel): node_id}."""
  nodes, names = [], {}
  for site, (layer, first) in _places(circuit).items():
    values = circuit.activations[site][example, :length]
    for column, channel in enumerate(map(int, circuit.nodes.get(site, ()))):
      strongest = int(np.argmax(np.abs(values[:, column])))
      label = f'{site}:{channel}'
      if site.split('.')[-1] in ('q', 'k', 'v'):
        label = f'{label} (head {channel // circuit.config.d_head})'
      # Their word for what is neither token, logit nor error.
      kind = 'cross layer transcoder'
      node = _node(layer, first + channel, strongest, kind, label)
      node['activation'] = float(values[strongest, column])
      names[site, channel] = node['node_id']
      nodes.append(node)
  return nodes, names


def _answers(circuit, nodes, shown):
  """The right answer and the other one.

  The readers move logits to the row above the highest layer. There is one in
  every model but those of one block, and none is found above layer 0: there
  the answers are nodes of a kind without features, in layer 1.
  """
  highest = max(int(node['layer']) for node in nodes)
  is_above = 1 <= highest < circuit.config.n_layer
  layer, kind = (highest + 1, 'logit') if is_above else (1, 'unknown')
  right = float(shown['probability'])
  beyond = sum(circuit.sites.values())
  for i, (answer, probability) in enumerate(
    ((shown['answer'], right), (shown['other_answer'], 1 - right))
  ):
    # The readers look for the probability behind the first '(p='.
    text = str(answer).replace('(p=', '( p=')
    label = f'Output "{text}" (p={probability:.3f}) of the two answers'
    position = len(shown['pieces']) - 1
    node = _node(layer, beyond + i, position, kind, label)
    yield {**node, 'token_prob': probability, 'is_target_logit': i == 0}


def _description(circuit, shown):
  return (
    f'Circuit of {circuit.task}: {circuit.description}. Answer '
    f'{shown["answer"]!r} against {shown["other_answer"]!r}. Links are '
    'weights; each node stands at the token where it is strongest.'
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
