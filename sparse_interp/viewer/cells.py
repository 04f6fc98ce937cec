"""What circuits and records show of themselves in a notebook."""

import html
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sparse_interp.files.record_files import Records
from sparse_interp.viewer.artifacts import StoredCircuit, assemble
from sparse_interp.viewer.drawing import draw, lay_out_circuit

# More than that hides everything else in a notebook, and slows it down.
_MOST_EDGES = 5000
_MOST_UNITS = 20
# Of an excerpt, tokens shown on each side of the one that it is for.
_AROUND = 12

_CELL = 'text-align: left; vertical-align: top; padding: 2px 8px'
_TEXT = f'{_CELL}; white-space: pre-wrap; font-family: monospace'


@runtime_checkable
class Drawable(Protocol):
  """A circuit in memory: the task, and what its two files would hold."""

  task: str

  def document(self) -> Mapping[str, Any]:
    """What circuit.json holds."""

  def arrays(self) -> Mapping[str, np.ndarray]:
    """What circuit.npz holds."""


def stored(circuit: Drawable, name: str | None = None) -> StoredCircuit:
  """A circuit as if it had been read from disk.

  Args:
    circuit: in memory.
    name: to show it by; None for that of its task.
  """
  document = dict(circuit.document())
  return assemble(name or circuit.task, document, dict(circuit.arrays()))


def circuit_html(circuit: Drawable) -> str:
  """The drawing of a circuit as the output of a notebook cell."""
  one = stored(circuit)
  if len(one.edges) > _MOST_EDGES:
    return (
      f'<p>{html.escape(one.name)}: {len(one.nodes):,} nodes, '
      f'{len(one.edges):,} edges, too many to draw in a cell</p>'
    )
  svg = draw(one, lay_out_circuit(one), alone=True)
  # In a notebook, the root is not the drawing, and its colours are not ours.
  svg = svg.replace(':root', '.circuit')
  return f'<div style="overflow-x: auto">{svg}</div>'


def records_html(records: Records) -> str:
  """A table of units, each with the excerpt on which it is highest.

  Args:
    records: of which the first units are shown.

  Returns:
    HTML that brings its style with it; nothing in a text is taken for a tag.
  """
  shown = records.units[:_MOST_UNITS]
  more = len(records.units) - len(shown)
  heads = ('unit', 'excerpts', 'largest activation', 'where it is highest')
  rows = ''.join(_unit_row(records, i) for i in range(len(shown)))
  return (
    f'<div><p>{html.escape(repr(records))}</p><table><thead><tr>'
    f'{"".join(f"""<th style="{_CELL}">{head}</th>""" for head in heads)}'
    f'</tr></thead><tbody>{rows}</tbody></table>'
    f'{f"<p>and {more:,} more units</p>" if more else ""}</div>'
  )


def _unit_row(records: Records, number: int) -> str:
  """How often a unit was caught, how high it goes, and on what."""
  name = records.units[number]
  mine = records.rows(name)
  example = ''
  if len(mine):
    peaks = records.values[mine, records.position[mine]]
    example = _marked_excerpt(records, int(mine[peaks.argmax()]))
  cells = (
    (_CELL, html.escape(name)),
    (_CELL, f'{len(mine):,}'),
    (_CELL, f'{records.highest[number]:.4g}'),
    (_TEXT, example),
  )
  inner = ''.join(f'<td style="{style}">{cell}</td>' for style, cell in cells)
  return f'<tr>{inner}</tr>'


def _marked_excerpt(records: Records, row: int) -> str:
  """The tokens around the one that an excerpt is for, which is marked."""
  tokens, at = records.tokens[row].tolist(), int(records.position[row])
  # Without a tokenizer, tokens are their numbers.
  between = '' if records.pieces else ' '
  pieces = [
    html.escape(records.pieces.get(token, f'{token}').replace('\n', '↵'))
    for token in tokens
  ]
  pieces[at] = f'<mark>{pieces[at]}</mark>'
  start, stop = max(at - _AROUND, 0), at + _AROUND + 1
  left, right = '… ' * (start > 0), ' …' * (stop < len(pieces))
  return f'{left}{between.join(pieces[start:stop])}{right}'
