"""What a circuit shows of itself in a notebook, straight from memory."""

import html
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sparse_interp.viewer.artifacts import StoredCircuit, assemble
from sparse_interp.viewer.drawing import draw, lay_out_circuit

# More than that hides everything else in a notebook, and slows it down.
_MOST_EDGES = 5000


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
