"""Writes the report of a run: one html file that needs nothing else."""

import base64
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sparse_interp.files import metric_rows, whole_file
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.viewer.artifacts import StoredCircuit, read_circuits
from sparse_interp.viewer.assets import read_asset
from sparse_interp.viewer.drawing import draw, draw_legend, lay_out_circuit
from sparse_interp.viewer.payload import page_data
from sparse_interp.viewer.results import section

# In the order of their use; all share one scope.
_STYLES = ('circuit.css', 'report.css', 'detail.css')
_SCRIPTS = (
  'dom.js',
  'curves.js',
  'tasks.js',
  'circuit.js',
  'heatmap.js',
  'panel.js',
  'report.js',
)


def write_report(workdir: str, path: str) -> None:
  """Writes a self-contained html report of what lies in a workdir.

  Reads summary.json, metrics.jsonl (if there is one) and
  circuits/*/circuit.{json,npz}; opens without network or server.

  Args:
    workdir: of a run that ended.
    path: of the html file; it appears whole or not at all.

  Raises:
    ValueError: summary.json is missing, or a file is damaged or of an unknown
      schema.
  """
  folder = pathlib.Path(workdir)
  summary = workdir_lib.read_summary(folder)
  if not summary:
    raise ValueError(
      f'workdir must hold summary.json, got {folder} without; run the '
      'experiment to its end first.'
    )
  metrics = metric_rows.read(folder / metric_rows.NAME)
  order = {name: i for i, name in enumerate(section(summary, 'tasks'))}
  circuits = sorted(
    read_circuits(folder / 'circuits'),
    key=lambda circuit: order.get(circuit.name, len(order)),
  )
  write(path, summary, metrics, circuits)


def write(
  path: str | pathlib.Path,
  summary: Mapping[str, Any],
  metrics: Sequence[Mapping[str, Any]],
  circuits: Sequence[StoredCircuit],
) -> None:
  """Writes the page of a summary, rows of metrics, and circuits."""
  layouts = [lay_out_circuit(circuit) for circuit in circuits]
  drawings = ''.join(
    f'<template id="drawing-{i}">{draw(circuit, layout, alone=False)}'
    '</template>\n'
    for i, (circuit, layout) in enumerate(zip(circuits, layouts, strict=True))
  )
  data = page_data(summary, metrics, circuits, layouts)
  with whole_file.writing(path) as part:
    part.write_text(_page(data, drawings), encoding='utf-8')


def _page(data: Mapping, drawings: str) -> str:
  """Fills the skeleton. Its policy lets the page load nothing at all."""
  style = ''.join(map(read_asset, _STYLES))
  watch = read_asset('watch.js')
  script = '\n'.join(map(read_asset, _SCRIPTS))
  parts = {
    'style': style,
    'watch': watch,
    'script': f"'use strict';\n(() => {{\n{script}\n}})();",
    'circuit-style': read_asset('circuit.css'),
    'legend': draw_legend(),
    'drawings': drawings,
    'data': _script_json(data),
  }
  parts['policy'] = (
    f"default-src 'none'; style-src {_digest(style)}; "
    f'script-src {_digest(watch)} {_digest(parts["script"])}; '
    "base-uri 'none'; form-action 'none'"
  )
  # In one pass, so that nothing in the data is taken for a placeholder.
  return re.sub(
    r'\{\{([a-z-]+)\}\}',
    lambda match: parts[match.group(1)],
    read_asset('report.html'),
  )


def _script_json(data: Mapping) -> str:
  """Returns json that can stand inside a script element: plain ASCII, no <."""
  text = json.dumps(data, allow_nan=False, separators=(',', ':'))
  return text.replace('<', '\\u003c').replace('>', '\\u003e')


def _digest(text: str) -> str:
  digest = hashlib.sha256(text.encode('utf-8')).digest()
  return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
