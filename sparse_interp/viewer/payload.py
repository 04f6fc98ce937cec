"""Turns artifacts into the data of the page: small, and safe to print.

Everything the page says in numbers or in words is decided here; the scripts
only show it.
"""

import base64
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparse_interp.viewer import words
from sparse_interp.viewer.artifacts import StoredCircuit
from sparse_interp.viewer.drawing import node_id
from sparse_interp.viewer.layout import Layout
from sparse_interp.viewer.results import (
  FOUND,
  find_target,
  headline,
  is_finite,
  section,
  task_row,
)

_EXACT = 17  # Digits that tell any two float64 apart.
_POINTS = 400  # Of a curve; more than its pixels.
_CURVES = (
  ('Loss', 'nats per token', ('train_loss', 'validation_loss')),
  ('Density', 'share of weights kept', ('density',)),
  ('Learning rate', '', ('learning_rate',)),
  ('Dead units', '', ('dead_neurons', 'dead_attention_channels')),
)


def page_data(
  summary: Mapping[str, Any],
  metrics: Sequence[Mapping[str, Any]],
  circuits: Sequence[StoredCircuit],
  layouts: Sequence[Layout],
) -> dict[str, Any]:
  """Returns the json-able data of the page, most floats to 4 digits.

  Args:
    summary: summary.json.
    metrics: rows of metrics.jsonl, by ascending step.
    circuits: the stored circuits.
    layouts: of their drawings.
  """
  target = find_target(summary, circuits)
  stored = {circuit.name: circuit for circuit in circuits}
  tasks = [
    task_row(name, entry, stored.get(name), target)
    for name, entry in section(summary, 'tasks').items()
    if isinstance(entry, Mapping)
  ]
  data = {
    'title': words.title(summary, circuits),
    'lead': words.lead(summary, circuits),
    'outside': words.outside(circuits),
    'target': {
      'loss': target.loss,
      'text': '' if target.loss is None else repr(target.loss),
      'on': target.on,
    },
    'tiles': headline(summary, tasks, len(circuits), target),
    'facts': words.facts(summary, circuits),
    'nonzeros': section(summary, 'nonzeros'),
    'curves': training_curves(metrics),
    'tasks': tasks,
    'method': words.method(summary, circuits),
    'circuits': [
      _circuit(circuit, layout, tasks)
      for circuit, layout in zip(circuits, layouts, strict=True)
    ],
  }
  data = compact(data)
  # What was asked for and what was measured once stay as they are.
  data['config'] = compact(section(summary, 'asked', 'config'), _EXACT)
  for one, circuit in zip(data['circuits'], circuits, strict=True):
    one['record'] = compact({**circuit.document, 'history': None}, _EXACT)
  return data


def compact(value: Any, digits: int = 4) -> Any:
  """Rounds floats to significant digits; what is not finite becomes None.

  Halves of characters, which json can hold but no page can show, become the
  replacement character.
  """
  if isinstance(value, Mapping):
    return {
      compact(str(key)): compact(item, digits) for key, item in value.items()
    }
  if isinstance(value, list | tuple):
    return [compact(item, digits) for item in value]
  if isinstance(value, np.ndarray):
    return compact(value.tolist(), digits)
  if isinstance(value, str):
    return value.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
  if isinstance(value, bool | int | None):
    return value
  number = float(value)
  return float(f'{number:.{digits}g}') if math.isfinite(number) else None


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> list[dict]:
  """Returns the charts of a training run, each with its series."""
  charts = []
  for title, unit, fields in _CURVES:
    series = []
    for field in fields:
      rows = [row for row in metrics if is_finite(row.get(field))]
      steps, values = downsample(
        [row['step'] for row in rows], [row[field] for row in rows]
      )
      if steps:
        name = field.removesuffix('_loss').removeprefix('dead_')
        name = name.replace('_', ' ')
        series.append({'name': name, 'steps': steps, 'values': values})
    if series:
      charts.append({'title': title, 'unit': unit, 'series': series})
  return charts


def downsample(
  steps: Sequence[int], values: Sequence[int | float], points: int = _POINTS
) -> tuple[list[int], list[int | float]]:
  """Keeps first, last, and the extremes of even stretches of a curve.

  A spike of one step in a million still shows.

  Args:
    steps: ascending.
    values: as many.
    points: about the number to keep.

    >>> downsample(range(100), [0] * 50 + [9] + [0] * 49, points=4)
    ([0, 50, 51, 99], [0, 9, 0, 0])
  """
  if len(steps) <= points:
    return list(steps), list(values)
  keep = {0, len(steps) - 1}
  bounds = np.linspace(0, len(steps), points // 2 + 1).astype(int)
  for start, stop in itertools.pairwise(bounds):
    part = np.asarray(values[start:stop])
    keep |= {start + int(part.argmin()), start + int(part.argmax())}
  order = sorted(keep)
  return [steps[i] for i in order], [values[i] for i in order]


def _circuit(
  circuit: StoredCircuit, layout: Layout, tasks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """Returns what the page needs of a circuit beside its drawing."""
  document = circuit.document
  scale, values = pack(circuit.activations)
  return {
    'name': circuit.name,
    'standing': _standing(circuit.name, tasks),
    'target': words.target(document),
    'ablation': words.ablation(document),
    'formulas': [
      [name.replace('_', ' '), words.text(formula)]
      for name, formula in section(document, 'formula').items()
    ],
    'activations_are': words.whose_activations(document),
    'means_are': words.mean_of_node(document),
    'history': _history_curves(document),
    'ids': [node_id(circuit, node) for node in range(len(circuit.nodes))],
    'kinds': list(layout.kinds),
    'means': circuit.means,
    'scores': circuit.scores,
    'edges': [
      [int(source), int(target), float(weight)]
      for (source, target), weight in zip(
        circuit.edges, circuit.weights, strict=True
      )
    ],
    'scale': [float(s) for s in scale],
    'activations': values,
  }


def _standing(name: str, tasks: Sequence[Mapping[str, Any]]) -> str:
  """Returns what keeps a circuit from counting: a drawing convinces."""
  row = next((row for row in tasks if row['name'] == name), None)
  if row is None:
    return 'summary.json does not list this circuit, nor say if it met bounds.'
  if row['status'] == FOUND:
    return ''
  return f'Not counted as a circuit: {row["status"]}: {row["reason"]}.'


def _history_curves(document: Mapping[str, Any]) -> list[dict]:
  """Returns the charts of a pruning run."""
  history = section(document, 'history')
  charts = []
  for title, field in (
    (words.search_loss(document), 'task_loss'),
    ('Active nodes', 'nodes'),
    ('Active edges', 'edges'),
  ):
    pairs = [
      (step, value)
      for step, value in zip(
        history.get('step', []), history.get(field, []), strict=False
      )
      if is_finite(value)
    ]
    if pairs:
      steps, values = downsample(
        [step for step, _ in pairs], [value for _, value in pairs]
      )
      series = [{'name': title, 'steps': steps, 'values': values}]
      unit = 'in pruning, of a batch' if field == 'task_loss' else 'in pruning'
      charts.append({'title': title, 'unit': unit, 'series': series})
  return charts


def pack(values: np.ndarray) -> tuple[np.ndarray, str]:
  """Packs the rows of a matrix into 16 bits a value.

  Args:
    values: (n, t) float32.

  Returns:
    (n,) float64 scales, and base64 of little-endian int16, row by row: a value
    is its scale times its integer. The error is at most half a scale, and
    zero stays zero, as AbsTopK left it.
  """
  scale = np.abs(values).max(axis=1, initial=0.0).astype(np.float64) / 32767
  safe = np.where(scale > 0, scale, 1.0)[:, None]
  integers = np.rint(values / safe).astype('<i2')
  return scale, base64.b64encode(integers.tobytes()).decode('ascii')
