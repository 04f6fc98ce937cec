"""The whole path in one run: text to model, circuits, numbers and a page."""

import pathlib
import time
from typing import Any

from ml_collections import config_dict

from sparse_interp.files import workdir as workdir_lib
from sparse_interp.runs import pose, pretrained, prune, table
from sparse_interp.training import free_memory, metrics, pretrain
from sparse_interp.training import plan as plan_lib
from sparse_interp.viewer.report import write_report


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
  plan = plan_lib.make_plan(config, free_memory.of_devices())
  pose.check_memory(config, plan.model)
  summary = pretrain.pretrain(config, workdir)
  begun = time.monotonic()
  report = pathlib.Path(workdir) / 'report.html'
  if prune.is_complete(workdir) and report.exists():
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
    write_report(workdir, str(report))
  table.print_table(summary)
  print(f'report: {report}', flush=True)
  return summary
