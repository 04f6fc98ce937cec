"""What a run leaves in its directory besides checkpoints and metrics.

Every file is replaced in one step, so that a run killed at any moment leaves
either the old content or the new one.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import sparse_interp
from sparse_interp.files import whole_file


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes a JSON file in one step."""
  with whole_file.writing(path) as part:
    part.write_text(json.dumps(value, indent=2) + '\n')


def claim(workdir: str | pathlib.Path, config: Mapping[str, Any]) -> None:
  """Makes the directory a run's own: writes config.json, or compares with it.

  Args:
    workdir: made if missing.
    config: nested mapping of JSON values (tuples count as lists).

  Raises:
    ValueError: the directory holds another configuration.
  """
  asked = json.loads(json.dumps(config))
  path = pathlib.Path(workdir) / 'config.json'
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asked)
    return
  try:
    found = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f'workdir must hold a readable config.json, got {path}: {error}; '
      'choose another workdir.'
    ) from error
  difference = _first_difference(found, asked)
  if difference is not None:
    field, there, here = difference
    raise ValueError(
      f'workdir must be new or hold the same configuration, got {workdir} '
      f'with {field} = {there} there and {here} asked; choose another '
      'workdir or the configuration of this one.'
    )


def release(workdir: str | pathlib.Path) -> None:
  """Takes back a claim whose configuration turned out to be wrong.

  Removes what a run writes before it trains, file by file: the directory may
  be one where the user keeps other things.
  """
  workdir = pathlib.Path(workdir)
  for name in ('tokenizer.json', 'config.json'):
    (workdir / name).unlink(missing_ok=True)
  for split in ('train', 'validation'):
    for path in (workdir / 'data').glob(f'{split}-*'):
      path.unlink(missing_ok=True)
  for directory in (workdir / 'data', workdir / 'checkpoints', workdir):
    with contextlib.suppress(OSError):  # missing, or not empty
      directory.rmdir()


_MISSING = 'nothing'


def _first_difference(
  found: Any, asked: Any, field: str = ''
) -> tuple[str, str, str] | None:
  """(dotted field, value found, value asked) where two trees first differ."""
  if isinstance(found, dict) and isinstance(asked, dict):
    for key in dict.fromkeys([*asked, *found]):
      inner = _first_difference(
        found.get(key, _MISSING),
        asked.get(key, _MISSING),
        f'{field}.{key}' if field else str(key),
      )
      if inner is not None:
        return inner
    return None
  # A field that a later version added, and that is not used, is no difference.
  unused = (None, _MISSING)
  if found == asked or (found in unused and asked in unused):
    return None
  return field or 'the configuration', *(
    'a section' if isinstance(v, dict) else str(v) for v in (found, asked)
  )


def read_summary(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Reads summary.json; empty if there is none."""
  path = pathlib.Path(workdir) / 'summary.json'
  return json.loads(path.read_text()) if path.exists() else {}


def add_to_summary(
  workdir: str | pathlib.Path, entries: Mapping[str, Any]
) -> dict[str, Any]:
  """Sets top-level entries of summary.json, keeps the others, returns all."""
  summary = read_summary(workdir) | dict(entries)
  write_json(pathlib.Path(workdir) / 'summary.json', summary)
  return summary


def code_version() -> str:
  """Version of the package and a hash of its source, e.g. '0.1.0+1f2e3d4c'.

  Works where there is no repository, and sees changes not yet committed.
  Configurations, which an installation has within the package, do not count.
  """
  root = pathlib.Path(sparse_interp.__file__).parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    if path.is_relative_to(root / 'experiments'):
      continue
    digest.update(path.relative_to(root).as_posix().encode() + b'\0')
    digest.update(path.read_bytes() + b'\0')
  return f'{sparse_interp.__version__}+{digest.hexdigest()[:8]}'
