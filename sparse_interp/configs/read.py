"""From what stands behind --config= to a configuration.

Whatever a file does wrong ends in a ValueError of one line that names the file
and, where there is one, the line.
"""

import difflib
import inspect
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from sparse_interp.configs import module, shipped

_TAKEN = (
  'the name of a configuration that ships (--list shows them) or a Python file '
  'with get_config()'
)


def read(
  path: pathlib.Path, variant: Sequence[str] = ()
) -> config_dict.ConfigDict:
  """The configuration that a file returns, unlocked.

  Args:
    path: of a Python file.
    variant: what is handed to its get_config: nothing or one text.

  Raises:
    ValueError: something is wrong with the file.
  """
  return _as_config(_call(path, variant), path)


def locate(asked: str) -> tuple[pathlib.Path, list[str]]:
  """(file, variant or nothing) that a text names.

  Args:
    asked: name of one that ships, or path of a Python file; either may have
      ':variant' behind it.

  Raises:
    ValueError: there is no such file or name.
  """
  name, colon, variant = asked.partition(':')
  if pathlib.Path(asked).expanduser().exists():
    name, colon = asked, ''
  path = pathlib.Path(name).expanduser()
  if not path.exists() and name in shipped.names():
    path = shipped.path_of(name)
  if not path.is_file():
    what = 'a directory' if path.is_dir() else 'which is not there'
    raise ValueError(
      f'config must be {_TAKEN}, got {name}, {what}; {_suggestion(name)}'
    )
  if path.suffix != '.py':
    raise ValueError(
      f'config must be {_TAKEN}, got {path}, a {path.suffix or "plain"} file; '
      'write a Python file whose get_config() returns these fields.'
    )
  return path, [variant] if colon else []


def _suggestion(name: str) -> str:
  """What the user may have meant by a name that is not there."""
  # experiments/quickstart.py, where there is no clone, and the like.
  stem = name.removesuffix('.py').removeprefix('./').rstrip('/')
  ends = [n for n in shipped.names() if f'/{stem}'.endswith(f'/{n}')]
  close = difflib.get_close_matches(stem, shipped.names(), 1)
  close += [n for n in shipped.names() if n.rpartition('/')[2] == stem]
  if found := ends or close:
    return f'did you mean --config={max(found, key=len)}?'
  return 'correct the path, or look for one with --list.'


def _call(path: pathlib.Path, variant: Sequence[str]) -> Any:
  """What get_config of a file returns."""
  try:
    get_config = getattr(module.load(path), 'get_config', None)
  except (Exception, SystemExit) as error:
    raise ValueError(_broken(path, error)) from error
  if not callable(get_config):
    raise ValueError(
      f'config must define get_config(), got {path} without it; return the '
      'fields from a function of that name.'
    )
  try:
    inspect.signature(get_config).bind(*variant)
  except TypeError as error:
    wrong = (
      f'must have no variant, got {variant[0]!r} for {path}, whose '
      'get_config() takes none; leave it and the colon away.'
      if variant
      else f'must have one variant, got {path}, whose get_config takes what '
      f'stands behind a colon; write --config={path}:<variant>.'
    )
    raise ValueError(f'config {wrong}') from error
  try:
    return get_config(*variant)
  except (Exception, SystemExit) as error:
    ships = path.resolve().is_relative_to(shipped.directory().resolve())
    if ships and isinstance(error, ValueError):
      raise  # says itself which variants there are
    raise ValueError(_broken(path, error)) from error


def _broken(path: pathlib.Path, error: BaseException) -> str:
  """One line on a file that raises."""
  place, line = path, None
  if isinstance(error, SyntaxError):
    place, line = error.filename or path, error.lineno
    what = f'{type(error).__name__}: {error.msg}'
  else:
    here = str(path.resolve())
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in frames[::-1] if f.filename == here), None)
    what = ' '.join(f'{type(error).__name__}: {error}'.split())
  where = f'{place}, line {line}' if line else f'{place}'
  remedy = (
    'install it or correct the import'
    if isinstance(error, ImportError)
    else 'correct the file'
  )
  return f'config must be a file that runs, got {where}: {what}; {remedy}.'


def _as_config(value: Any, path: pathlib.Path) -> config_dict.ConfigDict:
  if isinstance(value, config_dict.FrozenConfigDict):
    value = config_dict.ConfigDict(value)
  if isinstance(value, Mapping):
    try:
      value = config_dict.ConfigDict(dict(value))
    except Exception as error:  # keys that are no names, in many ways
      what = ' '.join(f'{error}'.split())
      raise ValueError(
        f'config must have names for keys, got what {path} returns: {what}; '
        'correct them.'
      ) from error
  if not isinstance(value, config_dict.ConfigDict):
    forgotten = ' (is a return missing?)' if value is None else ''
    raise ValueError(
      f'get_config() must return a ConfigDict, got {type(value).__name__} from '
      f'{path}{forgotten}; return the configuration.'
    )
  return value
