"""A name of the interface, or a word of the design, stands for one thing."""

import ast
import collections
import pathlib

import pytest

import sparse_interp

PACKAGE = pathlib.Path(sparse_interp.__file__).parent
# What a user holds in hand: one class each; a graph has none yet.
WORDS = ('Model', 'Task', 'Circuit', 'Verdict', 'Number', 'Records')
NO_CLASS_YET = ('Graph',)
# A module about one kind of thing reads it by `load` and is named where it is
# called: `circuit.load`. `si.load` is the one of models.
READERS = {'load'}


def definitions(package: pathlib.Path) -> dict[str, list[str]]:
  """Where each name is defined, at the top of files: def, class or `=`."""
  found = collections.defaultdict(list)
  for path in sorted(package.rglob('*.py')):
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
      if isinstance(node, ast.FunctionDef | ast.ClassDef):
        found[node.name].append(path.relative_to(package).as_posix())
      if isinstance(node, ast.Assign):
        for target in node.targets:
          if isinstance(target, ast.Name):
            found[target.id].append(path.relative_to(package).as_posix())
  return found


def problems(
  package: pathlib.Path, public: list[str], words: tuple[str, ...]
) -> list[str]:
  """What keeps a name from standing for one thing."""
  found, said = definitions(package), []
  for name in dict.fromkeys([*public, *words]):
    if name not in READERS and len(found[name]) != 1:
      where = ', '.join(found[name]) or 'no file'
      said.append(f'{name}: must be defined once, is in {where}')
  rooms = {path.parent.name for path in package.rglob('__init__.py')}
  said += [f'{name}: is a room, too' for name in sorted(rooms & {*public})]
  return said


def test_every_name_stands_for_one_thing():
  assert not problems(PACKAGE, sparse_interp.__all__, WORDS)


def test_a_word_without_a_class_gets_at_most_one():
  found = definitions(PACKAGE)
  assert all(len(found[word]) <= 1 for word in NO_CLASS_YET)


@pytest.mark.parametrize(
  ('name', 'text', 'expected'),
  [
    ('runs/again.py', 'def prune(): pass', 'prune: must be defined once'),
    ('runs/again.py', 'class Task: pass', 'Task: must be defined once'),
    ('runs/again.py', 'Task = int', 'Task: must be defined once'),
    ('prune/__init__.py', '', 'prune: is a room, too'),
  ],
)
def test_a_second_meaning_is_found(tmp_path, name, text, expected):
  one = 'def prune(): pass\nclass Task: pass\n'
  files = {'__init__.py': '', 'circuits/prune_task.py': one}
  for path, content in files.items():
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(content)
  assert not problems(tmp_path, ['prune'], ('Task',))
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_text(text)
  (problem,) = problems(tmp_path, ['prune'], ('Task',))
  assert problem.startswith(expected)
