"""The style, behaviour and skeleton of the report."""

import importlib.resources


def read_asset(name: str) -> str:
  """Returns the text of a file of this package."""
  path = importlib.resources.files(__name__) / name
  return path.read_text(encoding='utf-8')
