"""The configurations that come with the package, by name.

The name is the path below `experiments/` without its ending: `quickstart`,
`pretrain/laptop`. In a clone that directory stands beside the package; where
the package is installed it is part of it.
"""

import ast
import functools
import pathlib

from ml_collections import config_dict

import sparse_interp
from sparse_interp.configs import module


def directory() -> pathlib.Path:
  """Where they are.

  Raises:
    ValueError: the installation lacks them.
  """
  package = pathlib.Path(sparse_interp.__file__).resolve().parent
  for place in (package / 'experiments', package.parent / 'experiments'):
    if (place / 'quickstart.py').is_file():
      return place
  raise ValueError(
    f'the package must come with its configurations, got {package} without '
    'experiments/ in it or beside it; install it again.'
  )


@functools.cache
def names() -> dict[str, str]:
  """{name: first line of its docstring} of all that ship."""
  root, found = directory(), {}
  for path in sorted(root.rglob('*.py')):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    if any(getattr(node, 'name', '') == 'get_config' for node in tree.body):
      name = path.relative_to(root).with_suffix('').as_posix()
      found[name] = (ast.get_docstring(tree) or '').partition('\n')[0]
  return found


def path_of(name: str) -> pathlib.Path:
  """The file of a configuration."""
  return directory() / f'{name}.py'


def load(name: str, *variant: str) -> config_dict.ConfigDict:
  """A configuration that ships, new and unlocked.

  Args:
    name: of `names`.
    *variant: what its get_config takes, if it takes something.

  Raises:
    ValueError: there is no such configuration or variant.
  """
  if name not in names():
    raise ValueError(
      f'config must be one of {", ".join(names())}, got {name!r}; choose one '
      'of these.'
    )
  return module.load(path_of(name)).get_config(*variant)
