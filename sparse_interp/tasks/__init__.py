"""The twenty behaviours of Table 1 of the paper, by their published names."""

from collections.abc import Sequence

from sparse_interp.tasks import (
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


def get_tasks(names: Sequence[str]) -> list[Task]:
  """The tasks of the given names, in the given order.

  Raises:
    ValueError: If a name is unknown.
  """
  for name in names:
    if name not in TASKS:
      raise ValueError(
        f'tasks must be among {", ".join(TASKS)}, got {name!r}; choose e.g. '
        "'single_double_quote'."
      )
  return [TASKS[name] for name in names]
