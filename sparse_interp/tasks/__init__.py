"""The twenty behaviours of Table 1 of the paper, by name, and your own."""

import os
from collections.abc import Sequence

from sparse_interp.tasks import (
  own,
  python_blocks,
  python_brackets,
  python_names,
  python_strings,
)
from sparse_interp.tasks.pairs import Task

_NAMES = (
  'single_double_quote',
  'final_kwarg',
  'set_or_string',
  'set_or_string_fixedvarname',
  'class_init',
  'with_as',
  'bracket_brace',
  'with_open',
  'bracket_counting',
  'for_while',
  'else_elif',
  'fstring_brace',
  'if_ternary',
  'var_swap',
  'indent_for',
  'lambda_func',
  'if_equals',
  'enumerate_range',
  'var_if',
  'while_return_true',
)
_BY_NAME = {
  task.name: task
  for suite in (python_strings, python_brackets, python_blocks, python_names)
  for task in suite.TASKS
}

# In the published order.
TASKS: dict[str, Task] = {name: _BY_NAME[name] for name in _NAMES}


def is_path(name: str) -> bool:
  """Whether a name of a task is the path of a file of pairs; see `own`."""
  return name.endswith('.jsonl') or '/' in name or os.sep in name


def get_tasks(names: Sequence[str]) -> list[Task]:
  """The tasks of the given names, in the given order.

  Args:
    names: of the suite, or paths of files of pairs, which end in .jsonl or name
      a directory.

  Raises:
    ValueError: If a name is unknown, two tasks have the same, or a file holds
      no task; see `own.read_task`.
    OSError: If a file cannot be read.
  """
  found: dict[str, str] = {}
  tasks = []
  for name in names:
    if is_path(name):
      task = own.read_task(name)
    elif name in TASKS:
      task = TASKS[name]
    else:
      raise ValueError(
        f'tasks must be among {", ".join(TASKS)}, or files of pairs, got '
        f"{name!r}; choose e.g. 'single_double_quote' or 'pairs.jsonl'."
      )
    _check_name(task, name, found)
    tasks.append(task)
  return tasks


def _check_name(task: Task, source: str, found: dict[str, str]) -> None:
  """Refuses a name that is taken; some disks know no capitals."""
  taken = {name.lower(): f'the task {name} of the suite' for name in TASKS}
  taken['all'] = 'all of the suite'
  if task.listed is None:
    taken = {}
  taken |= found
  name = task.name.lower()
  if taken.get(name) == source:
    raise ValueError(
      f'tasks must be named once each, got {source} twice; leave one out.'
    )
  if name in taken:
    raise ValueError(
      f'tasks must have a name each, got {task.name} of {source} and of '
      f'{taken[name]}; rename the file.'
    )
  found[name] = source
