"""The whole path in one run: text to model, circuits, numbers and a page."""

import pathlib
import time
from typing import Any

from ml_collections import config_dict

from sparse_interp.files import workdir as workdir_lib
from sparse_interp.runs import (
  found_circuits,
  pair_files,
  pose,
  pretrained,
  prune,
  report,
  table,
)
from sparse_interp.training import hosts, metrics, pretrain

_PHASE = 'quickstart'


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
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
  plan = pretrain.check(config, workdir)
  pose.check_memory(config, plan.model)
  config = pair_files.remembered(config, workdir)
  with hosts.claimed(workdir, config.to_dict(), _PHASE) as claim:
    summary = pretrain.run(config, workdir)
    if not hosts.leads():  # one finds the circuits
      return summary
    found = found_circuits.is_complete(workdir)
    if found and report.is_current(workdir, summary):
      metrics.say(_PHASE, f'everything is done already in {workdir}')
    else:
      if not found:
        _find(config, workdir, summary, claim)
      summary = report.write(workdir)
  table.print_table(summary)
  print(f'report: {pathlib.Path(workdir) / report.PAGE}', flush=True)
  return summary


def _find(
  config: config_dict.ConfigDict,
  workdir: str,
  summary: dict[str, Any],
  claim: workdir_lib.Claim,
) -> dict[str, Any]:
  begun = time.monotonic()
  model = pretrained.load(workdir)
  measured = pose.measure_tasks(config, model)
  results = prune.find_circuits(config, model, measured, workdir, claim)
  # Training counts its own seconds, over interruptions too.
  seconds = summary['wall_seconds'] + time.monotonic() - begun
  return workdir_lib.add_to_summary(
    workdir, {**results, 'wall_seconds': seconds}
  )
