"""The report run, and the page that every run with circuits ends with."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from sparse_interp.files import regular
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.training import hosts, metrics
from sparse_interp.viewer.report import write_report

PAGE = 'report.html'
_PHASE = 'report'
_HASH = 'report_sha256'
# Entries of summary.json that the page can speak of.
_SHOWN = ('learned_tasks', 'pretrain')


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Makes the page of a workdir again, from what lies there.

  Args:
    config: any; the page shows what the workdir's own came to.
    workdir: of a run that has ended; receives report.html.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: there is no such run, it is at work, or one of its files is
      damaged.
  """
  del config
  directory = pathlib.Path(workdir)
  for name in ('summary.json', 'config.json'):
    if not (directory / name).exists():
      raise ValueError(
        f'workdir must hold a run that has ended, got {workdir} without '
        f'{name}; correct the path, or run its configuration to the end.'
      )
  summary = workdir_lib.read_summary(directory)
  if not any(name in summary for name in _SHOWN):
    raise ValueError(
      'workdir must be of a run that trains a model or makes '
      f'circuits, got {workdir} with {", ".join(summary) or "nothing"}; choose '
      'another --workdir.'
    )
  with hosts.claimed(workdir, _own_config(directory), _PHASE) as claim:
    claim.settle()
    return write(workdir)


def write(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Writes the page of a workdir, which is claimed, and says where it is.

  Returns:
    The content of summary.json, with the hash of the page.

  Raises:
    ValueError: a file is missing or damaged.
  """
  path = pathlib.Path(workdir) / PAGE
  write_report(str(workdir), str(path))
  metrics.say(_PHASE, str(path))
  return workdir_lib.add_to_summary(workdir, {_HASH: _digest(path)})


def is_current(workdir: str | pathlib.Path, summary: Mapping[str, Any]) -> bool:
  """Whether the page is there as it was written."""
  path = pathlib.Path(workdir) / PAGE
  return path.exists() and _digest(path) == summary.get(_HASH)


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _own_config(directory: pathlib.Path) -> dict[str, Any]:
  """The configuration that a workdir was made with."""
  path = directory / 'config.json'
  try:
    return json.loads(regular.read_bytes(path))
  except (ValueError, RecursionError) as error:
    what = ' '.join(str(error).split())
    raise ValueError(
      f'workdir must hold a readable config.json, got {what} in {path}; '
      'restore it or choose another workdir.'
    ) from error
