"""The home directory in paths of a configuration."""

import os
import re
from typing import Any

from ml_collections import config_dict

# A path, or a corpus that names one: files:~/text/*.py.
_HOME = re.compile(r'(?P<kind>(?:files:|jsonl:|parquet:)?)(?P<path>~.*)', re.S)


def expand(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """A copy with every ~ at the beginning of a path replaced by the home."""
  copy = config.copy_and_resolve_references()
  _expand_section(copy)
  return copy


def _expand_section(section: config_dict.ConfigDict) -> None:
  with section.unlocked(), section.ignore_type():
    for name, value in section.items():
      if isinstance(value, config_dict.ConfigDict):
        _expand_section(value)
      elif (expanded := _expand(value)) != value:
        section[name] = expanded


def _expand(value: Any) -> Any:
  if isinstance(value, tuple | list):
    return type(value)(map(_expand, value))
  if isinstance(value, str) and (found := _HOME.fullmatch(value)):
    return found['kind'] + os.path.expanduser(found['path'])
  return value
