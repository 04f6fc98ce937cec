"""Draws a circuit as svg: the one drawing, in the page and on its own.

The page adds behaviour to this markup by its classes and data attributes; the
same markup with its style and legend stands alone in a README.
"""

import html
import pathlib

import numpy as np

from sparse_interp.viewer.artifacts import StoredCircuit, read_circuit
from sparse_interp.viewer.assets import read_asset
from sparse_interp.viewer.layout import Layout, lay_out

_RADIUS = 5.5
_LEGEND_HEIGHT = 46.0
_LETTERS = {'query': 'q', 'key': 'k', 'value': 'v'}
_LEGEND = (
  ('read', 'read from the residual stream'),
  ('query', 'query'),
  ('key', 'key'),
  ('value', 'value'),
  ('neuron', 'MLP neuron'),
  ('write', 'write to the stream'),
  ('final', 'stream before the unembedding'),
)
_LINES = (
  ('edge positive', 'line', 'positive weight'),
  ('edge negative', 'line', 'negative weight (width: magnitude)'),
  ('', 'stream', 'same channel of the residual stream (identity, no edge)'),
)


def circuit_svg(directory: str) -> str:
  """Returns a stored circuit as a self-contained svg document.

  Args:
    directory: where circuit.json and circuit.npz of one circuit are.

  Raises:
    ValueError: a file is missing, damaged or of an unknown schema.
  """
  circuit = read_circuit(pathlib.Path(directory))
  return draw(circuit, lay_out_circuit(circuit), alone=True)


def lay_out_circuit(circuit: StoredCircuit) -> Layout:
  """Returns where the nodes of a stored circuit stand."""
  model = circuit.document.get('model', {})
  parallel = bool(model.get('parallel_residual'))
  return lay_out(circuit.sites, circuit.nodes, circuit.edges, parallel)


def node_id(circuit: StoredCircuit, node: int) -> str:
  """Returns the name of a node, e.g. '0.attn.act_in:17'."""
  site, channel = circuit.nodes[node]
  return f'{circuit.sites[site]}:{channel}'


def _safe_id(circuit: StoredCircuit, node: int) -> str:
  return html.escape(node_id(circuit, node))


def draw(circuit: StoredCircuit, layout: Layout, alone: bool) -> str:
  """Returns the svg of a circuit.

  Args:
    circuit: what to draw.
    layout: where its nodes stand.
    alone: with style, background and legend of its own, for use without the
      page.
  """
  width, height = layout.width, layout.height
  if alone:
    width, height = max(width, 1010.0), height + _LEGEND_HEIGHT
  size = f'width="{width:g}" height="{height:g}"'
  parts = [
    (
      f'<svg xmlns="http://www.w3.org/2000/svg" class="circuit" {size} '
      f'viewBox="0 0 {width:g} {height:g}">'
    )
  ]
  if alone:
    parts.append(f'<style>{read_asset("circuit.css")}</style>')
    parts.append(f'<rect class="paper" {size}/>')
  parts += _headings(layout)
  parts += _stream(layout)
  parts += _edges(circuit, layout)
  parts += _nodes(circuit, layout)
  if alone:
    parts += ['<g transform="translate(16 ', f'{layout.height + 8:g})">']
    parts += [*_legend_parts(), '</g>']
  return ''.join([*parts, '</svg>'])


def draw_legend() -> str:
  """Returns what the colours, lines and signs of the drawing mean, as svg."""
  return ''.join(
    [
      '<svg class="circuit legend" width="1000" height="36" ',
      'viewBox="0 0 1000 36">',
      *_legend_parts(),
      '</svg>',
    ]
  )


def _headings(layout: Layout) -> list[str]:
  parts = []
  for block in layout.blocks:
    middle = (block.left + block.right) / 2
    parts.append(
      f'<rect class="block" x="{block.left:.5g}" y="34" rx="8" '
      f'width="{block.right - block.left:.5g}" '
      f'height="{layout.height - 42:.5g}"/>'
      f'<text class="block-title" x="{middle:.5g}" y="22">'
      f'{html.escape(block.title)}</text>'
    )
  for column in layout.columns:
    parts.append(
      f'<text class="column-title" x="{column.left:.5g}" y="52">'
      f'{html.escape(column.title)}</text>'
    )
  return parts


def _stream(layout: Layout) -> list[str]:
  """Draws the identity along the residual stream, which is not an edge."""
  parts = ['<g class="streams">']
  for left, right in layout.stream.tolist():
    parts.append(
      f'<path class="stream" data-source="{left}" data-target="{right}" '
      f'd="M{layout.x[left] + _RADIUS:.5g} {layout.y[left]:.5g}'
      f'H{layout.x[right] - _RADIUS:.5g}"/>'
    )
  return [*parts, '</g>']


def _edges(circuit: StoredCircuit, layout: Layout) -> list[str]:
  parts = ['<g class="edges">']
  largest = float(np.abs(circuit.weights).max(initial=0.0)) or 1.0
  # Heavy edges last, so that they lie above light ones.
  for number in np.argsort(np.abs(circuit.weights), kind='stable'):
    source, target = circuit.edges[number].tolist()
    weight = float(circuit.weights[number])
    path = _curve(layout, source, target)
    sign = 'positive' if weight >= 0 else 'negative'
    parts.append(
      f'<g class="edge {sign}" data-edge="{number}" data-source="{source}" '
      f'data-target="{target}"><title>{_safe_id(circuit, source)} → '
      f'{_safe_id(circuit, target)}\nweight {weight:+.4g}</title>'
      f'<path class="reach" d="{path}"/><path class="line" d="{path}" '
      f'stroke-width="{0.8 + 3.4 * abs(weight) / largest:.3g}"/></g>'
    )
  return [*parts, '</g>']


def _curve(layout: Layout, source: int, target: int) -> str:
  x0, x1 = layout.x[source] + _RADIUS, layout.x[target] - _RADIUS
  y0, y1 = layout.y[source], layout.y[target]
  bend = 0.45 * (x1 - x0)
  return (
    f'M{x0:.5g} {y0:.5g}C{x0 + bend:.5g} {y0:.5g} {x1 - bend:.5g} {y1:.5g} '
    f'{x1:.5g} {y1:.5g}'
  )


def _nodes(circuit: StoredCircuit, layout: Layout) -> list[str]:
  parts = ['<g class="nodes">']
  for number, kind in enumerate(layout.kinds):
    name = _safe_id(circuit, number)
    label = _LETTERS.get(kind, '') + str(circuit.nodes[number][1])
    parts.append(
      f'<g class="node {kind}" data-node="{number}" data-id="{name}" '
      f'transform="translate({layout.x[number]:.5g} {layout.y[number]:.5g})">'
      f'<title>{name}\n{describe_node(circuit, number, kind)}</title>'
      f'<circle class="reach" r="11"/><circle class="dot" r="{_RADIUS}"/>'
      f'<text y="-9">{label}</text></g>'
    )
  return [*parts, '</g>']


def describe_node(circuit: StoredCircuit, node: int, kind: str) -> str:
  """Returns in words what a node of a kind is."""
  site, channel = (int(value) for value in circuit.nodes[node])
  model = circuit.document.get('model', {})
  layer, _, rest = circuit.sites[site].partition('.')
  if kind in _LETTERS:
    d_head = int(model.get('d_head') or 0)
    if not d_head:
      return f'{kind} channel {channel} of layer {layer}'
    return (
      f'{kind} component {channel % d_head} of head {channel // d_head} in '
      f'layer {layer}'
    )
  if kind == 'neuron':
    return f'MLP neuron {channel} of layer {layer}'
  if kind == 'final':
    return f'residual channel {channel} before the last norm and unembedding'
  block = 'attention' if rest.startswith('attn') else 'MLP'
  if kind == 'write':
    return (
      f'what the {block} of layer {layer} adds to residual channel {channel}'
    )
  if kind == 'read':
    # Concatenated position channels come after those of the stream.
    is_position = channel >= int(model.get('d_model') or channel + 1)
    what = 'position' if is_position else f'residual channel {channel}'
    return f'{what}, as the {block} of layer {layer} reads it'
  return f'channel {channel}'


def _legend_parts() -> list[str]:
  """Returns the legend in a space of 1000 by 36."""
  parts, x = [], 8.0
  for kind, text in _LEGEND:
    parts.append(
      f'<g class="node {kind}" transform="translate({x:.5g} 10)">'
      f'<circle class="dot" r="{_RADIUS}"/></g>'
      f'<text class="legend-text" x="{x + 11:.5g}" y="14">{text}</text>'
    )
    x += 34 + 5.9 * len(text)
  x = 2.0
  for group, line, words in _LINES:
    parts.append(
      f'<g class="{group}"><path class="{line}" stroke-width="3" '
      f'd="M{x:.5g} 29h24"/></g>'
      f'<text class="legend-text" x="{x + 30:.5g}" y="33">{words}</text>'
    )
    x += 54 + 5.9 * len(words)
  return parts
