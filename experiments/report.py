"""The page of a workdir, made again from what lies there.

    python -m sparse_interp --config=report --workdir=runs/quickstart

Takes a second; so does the configuration of the workdir itself with
--config.run=report.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = config_dict.ConfigDict()
  config.run = 'report'
  return config
