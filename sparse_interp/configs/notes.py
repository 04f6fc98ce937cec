"""What configurations say of their fields, in the comments beside them."""

import ast
import pathlib
import re
from collections.abc import Iterable

import sparse_interp
from sparse_interp.configs import shipped

# What is indented further holds for one variant only.
_ASSIGNMENT = re.compile(r'  config\.([\w.]+) = ')
_COMMENT = re.compile(r'\s*# (.*)')
# Dataclasses whose fields a section may hold, where their docstrings are.
_PRUNE = ('circuits/prune_config.py', 'PruneConfig')
_DATACLASSES = {
  'model': ('models/config.py', 'GPTConfig'),
  'optimizer': ('training/optimizer.py', 'OptimizerConfig'),
  **dict.fromkeys(('prune', 'nodes', 'edges', 'compiled', 'planted'), _PRUNE),
}


def of_shipped() -> dict[str, str]:
  """{dotted name: comment} of all configurations that ship.

  The source is read and not executed. What a comment does not say, the
  docstring of the dataclass behind the section does.
  """
  found = {}
  for section, (path, name) in _DATACLASSES.items():
    source = pathlib.Path(sparse_interp.__file__).parent / path
    entries = _attributes(source.read_text(encoding='utf-8'), name)
    found |= {f'{section}.{field}': text for field, text in entries.items()}
  # Comments of a configuration that many begin with count most.
  for name in sorted(shipped.names(), key=_order, reverse=True):
    found |= of_reference(name)
  return found


def _order(name: str) -> tuple[bool, str]:
  return name not in ('quickstart', 'pretrain/tiny'), name


def of_reference(name: str) -> dict[str, str]:
  """{dotted name: comment} of one that ships, without what it begins with."""
  text = shipped.path_of(name).read_text(encoding='utf-8')
  return of_source(text.splitlines())


def of_source(lines: Iterable[str]) -> dict[str, str]:
  """{dotted name: comment} of assignments: behind them, or in lines before."""
  found, before = {}, []
  for line in lines:
    if match := _COMMENT.fullmatch(line):
      before.append(match[1])
      continue
    if match := _ASSIGNMENT.match(line):
      behind = re.search(r'  # (.*)$', line)
      text = behind[1] if behind else ' '.join(before)
      if text:
        found.setdefault(match[1], text)
    before = []
  return found


def _attributes(source: str, name: str) -> dict[str, str]:
  """{field: text} of the Attributes of a dataclass's docstring."""
  tree = ast.parse(source)
  node = next(
    n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name
  )
  text = (ast.get_docstring(node) or '').partition('Attributes:\n')[2]
  entries = re.findall(r'^  (\w+): ((?:.+\n?)(?:    .*\n?)*)', text, re.M)
  return {field: ' '.join(words.split()) for field, words in entries}
