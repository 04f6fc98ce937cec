"""Scripts of before the rooms within rooms still find what they import.

All of it was `sparse_interp.interop.<module>` once, programs with known
circuits too. Such a name stands for the module where it is now, not for a
second one with classes of its own.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

_ROOMS = (
  'sparse_interp.interop.openai',
  'sparse_interp.interop.hugging_face',
  'sparse_interp.interop.torch_file',
  'sparse_interp.interop.mib',
  'sparse_interp.ground_truth.compiled',
  'sparse_interp.ground_truth.planted',
)
# What the room exported itself, and the module that has it.
_EXPORTED = {
  'CompiledProgram': 'program',
  'compile_program': 'tracr',
  'component_edges': 'edges',
  'convert': 'tracr',
  'edge_groups': 'edges',
  'load': 'storage',
  'path_weights': 'paths',
  'save': 'storage',
}


class _Finder:
  """Asked by Python for modules that it has not found elsewhere."""

  @staticmethod
  def find_spec(
    name: str, path: Any = None, target: Any = None
  ) -> importlib.machinery.ModuleSpec | None:
    """Where a module of this room has gone, if it was one."""
    del path, target
    room, _, module = name.rpartition('.')
    if room != __package__:
      return None
    for one in _ROOMS:
      if importlib.util.find_spec(f'{one}.{module}') is not None:
        return importlib.util.spec_from_loader(name, _SameModule(one, module))
    return None


class _SameModule(importlib.abc.Loader):
  """Gives a module under its second name."""

  def __init__(self, room: str, module: str):
    self._now = f'{room}.{module}'

  def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
    """Has Python make an empty one, for a moment."""

  def exec_module(self, module: types.ModuleType) -> None:
    """Puts the one that there is in its place."""
    sys.modules[module.__name__] = importlib.import_module(self._now)


def install() -> None:
  """Has Python ask here, last."""
  if _Finder not in sys.meta_path:
    sys.meta_path.append(_Finder)


def exported(name: str) -> Any:
  """A name that the room exported itself; AttributeError for any other."""
  if name not in _EXPORTED:
    raise AttributeError(f'module {__package__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__package__}.{_EXPORTED[name]}')
  return getattr(module, name)
