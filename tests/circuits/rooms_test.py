"""The sub-rooms of circuits, and what stands beside them, import one way."""

import ast
import graphlib
import pathlib

_ROOM = pathlib.Path(__file__).parents[2] / 'sparse_interp' / 'circuits'
_PREFIX = 'sparse_interp.circuits'


def _imported(path):
  """Modules and sub-rooms that a file of the room imports from the room."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == _PREFIX:
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module.startswith(_PREFIX):
      yield node.module.split('.')[2]


def test_sub_rooms_import_one_way():
  imports = {}
  for path in _ROOM.rglob('*.py'):
    own = path.relative_to(_ROOM).parts[0].removesuffix('.py')
    imports.setdefault(own, set()).update(set(_imported(path)) - {own})
  order = list(graphlib.TopologicalSorter(imports).static_order())
  names = ['gating', 'units', 'ranking', 'selecting', 'tuning']
  assert [name for name in order if name in names] == names
  assert order.index('extracted') < order.index('selecting')
