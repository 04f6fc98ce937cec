"""Circuits of a model that was trained before, with other tasks or settings.

    python -m sparse_interp.main --config=experiments/prune.py \
        --config.model_workdir=runs/quickstart \
        --config.tasks=lambda_func,with_as --workdir=runs/prune

Writes circuits/<task>/ and summary.json. The hyper-parameters are those of
experiments/quickstart.py; every field of PruneConfig can be set, as in
--config.prune.gates=edges.
"""

import importlib.util
import pathlib

from ml_collections import config_dict

from sparse_interp.training import fields


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  path = pathlib.Path(__file__).with_name('quickstart.py')
  spec = importlib.util.spec_from_file_location('quickstart', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  whole = module.get_config()

  config = config_dict.ConfigDict()
  config.run = 'prune'
  config.seed = whole.seed
  config.model_workdir = fields.optional(str)
  config.tasks = whole.tasks
  config.circuits_at_most = fields.optional(int)
  config.pairs = whole.pairs
  config.prune = whole.prune
  return config
