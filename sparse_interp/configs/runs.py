"""What a configuration's `run` can name, and the fields that each run needs."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Run:
  """A run, known without importing it.

  Attributes:
    says: what it does, in a line.
    reference: configuration that ships and has every field that it reads.
    variant: of that configuration.
    open: {section: dataclass whose fields it holds, those left out at their
      defaults}.
    loose: {section: dataclass}: sections that hold what differs from another
      one. A last * stands for all that are in a section.
  """

  says: str
  reference: str
  variant: tuple[str, ...] = ()
  open: Mapping[str, str] = dataclasses.field(default_factory=dict)
  loose: Mapping[str, str] = dataclasses.field(default_factory=dict)


_MODEL, _PRUNE = 'GPTConfig', 'PruneConfig'

RUNS = {
  'quickstart': Run(
    'from text to a model, its circuits and a page',
    'quickstart',
    open={'model': _MODEL, 'prune': _PRUNE},
  ),
  'pretrain': Run(
    'train a weight-sparse model', 'pretrain/tiny', open={'model': _MODEL}
  ),
  'prune': Run(
    'circuits of a model that was trained or imported before',
    'prune',
    open={'prune': _PRUNE},
  ),
  'import_model': Run('a model of other people as a workdir', 'import_model'),
  'seeds': Run(
    'the quickstart over seeds and by two recipes',
    'seeds',
    open={'model': _MODEL, 'prune': _PRUNE},
  ),
  'report': Run('make the page of a workdir again', 'report'),
  'strength': Run(
    'node masks, edge masks and attribution side by side',
    'strength',
    open={'prune': _PRUNE},
    loose={'nodes': _PRUNE, 'edges': _PRUNE, 'together.*': _PRUNE},
  ),
  'ground_truth': Run(
    'methods against circuits that are known',
    'ground_truth',
    open={'compiled': _PRUNE, 'planted': _PRUNE},
  ),
  'kernels': Run(
    'time kernels beside those of others', 'benchmarks/kernels', ('cpu',)
  ),
  'tune': Run('find the fastest kernels of a GPU', 'benchmarks/tune'),
  'step_time': Run(
    'time a sparse training step',
    'benchmarks/step_time',
    open={'model': _MODEL},
  ),
  'prune_time': Run(
    'time evaluation and pruning of a frozen model',
    'benchmarks/pruning',
    open={'model': _MODEL},
  ),
}
