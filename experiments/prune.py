"""Circuits of a model that was trained before, with other tasks or settings.

    python -m sparse_interp --config=prune \
        --config.model_workdir=runs/quickstart \
        --config.tasks=lambda_func,with_as --workdir=runs/prune

Writes circuits/<task>/ and summary.json. The hyper-parameters are those of
experiments/quickstart.py; every field of PruneConfig can be set, as in
--config.prune.gates=edges.
"""

from ml_collections import config_dict

from sparse_interp import configs
from sparse_interp.configs import sections


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  whole = configs.load('quickstart')
  config = config_dict.ConfigDict()
  config.run = 'prune'
  config.seed = whole.seed
  # Of a pretrain, quickstart or import_model run.
  config.model_workdir = sections.optional(str)
  config.tasks = whole.tasks
  config.circuits_at_most = sections.optional(int)
  config.pairs = whole.pairs
  config.prune = whole.prune
  return config
