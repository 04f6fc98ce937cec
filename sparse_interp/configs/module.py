"""A Python file as a module, without it being in any package."""

import hashlib
import importlib.util
import pathlib
import sys
from types import ModuleType


def load(path: pathlib.Path) -> ModuleType:
  """Executes a Python file and returns what it defines.

  Raises:
    OSError: it cannot be read.
    Exception: whatever the file raises, SyntaxError included.
  """
  path = path.resolve()
  place = hashlib.sha256(str(path).encode()).hexdigest()[:12]
  name = f'config_{path.stem}_{place}'
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None  # it is a .py file
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  # Dataclasses look for the module that they are defined in.
  sys.modules[name] = module
  spec.loader.exec_module(module)
  return module
