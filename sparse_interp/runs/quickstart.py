"""The whole path in one run: text to model, circuits, numbers and a page."""

import pathlib
import time
from typing import Any

from ml_collections import config_dict

from sparse_interp.files import workdir as workdir_lib
from sparse_interp.runs import pose, pretrained, prune, report, table
from sparse_interp.training import metrics, pretrain


def quickstart(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Pretrains, prunes and reports; goes on where an earlier call stopped.

  Args:
    config: see experiments/quickstart.py.
    workdir: receives everything, report.html at its top.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: a field of the configuration is wrong.
  """
  prune.check(config)
  summary = pretrain.pretrain(config, workdir)
  begun = time.monotonic()
  page = pathlib.Path(workdir) / report.PAGE
  if prune.is_complete(workdir) and page.exists():
    metrics.say('quickstart', f'everything is done already in {workdir}')
  else:
    model = pretrained.load(workdir)
    measured = pose.measure_tasks(config, model)
    results = prune.find_circuits(config, model, measured, workdir)
    # Training counts its own seconds, over interruptions too.
    seconds = summary['wall_seconds'] + time.monotonic() - begun
    summary = workdir_lib.add_to_summary(
      workdir, {**results, 'wall_seconds': seconds}
    )
    report.write(workdir)
  table.print_table(summary)
  print(f'report: {page}', flush=True)
  return summary
