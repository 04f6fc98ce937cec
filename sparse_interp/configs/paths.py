"""The home directory in paths of a configuration."""

import os
import re
from typing import Any

from ml_collections import config_dict

# A path, or a corpus that names one: files:~/text/*.py.
_HOME = re.compile(r'(?P<kind>(?:files:|jsonl:|parquet:)?)(?P<path>~.*)', re.S)


def expand(config: config_dict.ConfigDict) -> None:
  """Replaces every ~ at the beginning of a path by the home, in place."""
  with config.unlocked(), config.ignore_type():
    for name, value in config.items():
      if isinstance(value, config_dict.ConfigDict):
        expand(value)
      elif (expanded := _expand(value)) != value:
        config[name] = expanded


def _expand(value: Any) -> Any:
  if isinstance(value, tuple | list):
    return type(value)(map(_expand, value))
  if isinstance(value, str) and (found := _HOME.fullmatch(value)):
    return found['kind'] + os.path.expanduser(found['path'])
  return value
