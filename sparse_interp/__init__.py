"""Weight-sparse transformers, and the circuits inside them.

Train a transformer whose weights are almost all zero, cut it down to the few
edges that carry one behaviour, check that those edges are the behaviour, and
show them to a person. After "Weight-sparse transformers have interpretable
circuits" (arXiv 2511.13653).

    import sparse_interp as si

    model = si.load('runs/quickstart')
    task = si.task('final_kwarg')
    circuit = si.prune(model, task, seed=0)
    verdict = si.audit(model, circuit, task)
    small = si.extract(model, circuit)
    records = si.record(model, units=['0.mlp.post_act:5'])
    si.write_page('circuit.html', model, [circuit], [verdict])
"""

import importlib
from typing import Any

__version__ = '0.1.0'

# The public interface: {name: (module, attribute)}, each imported when it is
# first asked for, so that to import the package costs nothing.
_PUBLIC = {
  # Models.
  'load': ('sparse_interp.loading', 'load'),
  'pretrain': ('sparse_interp.training.trained', 'pretrain'),
  'Model': ('sparse_interp.models.model', 'Model'),
  'GPT': ('sparse_interp.models.gpt', 'GPT'),
  'GPTConfig': ('sparse_interp.models.config', 'GPTConfig'),
  # Behaviours.
  'task': ('sparse_interp.tasks.suite', 'task'),
  'task_names': ('sparse_interp.tasks.suite', 'task_names'),
  'read_task': ('sparse_interp.tasks.own', 'read_task'),
  # Circuits.
  'prune': ('sparse_interp.circuits.prune_task', 'prune'),
  'PruneConfig': ('sparse_interp.circuits.prune_config', 'PruneConfig'),
  'Circuit': ('sparse_interp.circuits.circuit', 'Circuit'),
  'audit': ('sparse_interp.auditing.audit', 'audit'),
  'extract': ('sparse_interp.circuits.extracted.extract_small', 'extract'),
  'record': ('sparse_interp.records.recording', 'record'),
  # Pages.
  'write_page': ('sparse_interp.viewer.page', 'write_page'),
}
# What rooms need of rooms that know them; see `Circuit._repr_html_`.
_INNER = {
  'circuit_html': ('sparse_interp.viewer.cells', 'circuit_html'),
  'records_html': ('sparse_interp.viewer.cells', 'records_html'),
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC and name not in _INNER:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = (_PUBLIC | _INNER)[name]
  return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
  return sorted([*globals(), *_PUBLIC])
