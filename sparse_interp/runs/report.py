"""The report run, and the page that every run with circuits ends with."""

import pathlib
from typing import Any

from ml_collections import config_dict

from sparse_interp.files import workdir as workdir_lib
from sparse_interp.training import metrics
from sparse_interp.viewer.report import write_report

PAGE = 'report.html'
# Entries of summary.json that the page can speak of.
_SHOWN = ('learned_tasks', 'pretrain', 'imported')


def report(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Makes the page of a workdir again, from what lies there.

  Args:
    config: any; the page shows the workdir's own. Nothing is claimed.
    workdir: of a run that has ended; receives report.html.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: there is no such run, or one of its files is damaged.
  """
  del config
  directory = pathlib.Path(workdir)
  if not (directory / 'summary.json').exists():
    raise ValueError(
      f'workdir must hold a run that has ended, got {workdir} without '
      'summary.json; correct the path, or run its configuration to the end.'
    )
  summary = workdir_lib.read_summary(directory)
  if not any(name in summary for name in _SHOWN):
    raise ValueError(
      'workdir must be of a run that trains or imports a model or makes '
      f'circuits, got {workdir} with {", ".join(summary) or "nothing"}; choose '
      'another --workdir.'
    )
  write(workdir)
  return summary


def write(workdir: str | pathlib.Path) -> None:
  """Writes the page of a workdir and says where it is.

  Raises:
    ValueError: a file is missing or damaged.
  """
  path = pathlib.Path(workdir) / PAGE
  write_report(str(workdir), str(path))
  metrics.say('report', str(path))
