"""The tasks of the suite, as the interface of the package gives them."""

from sparse_interp.tasks import TASKS, get_tasks
from sparse_interp.tasks.pairs import Task


def task(name: str) -> Task:
  """The task of a name; `task_names` lists them.

  Raises:
    ValueError: If there is none.
  """
  return get_tasks([name])[0]


def task_names() -> list[str]:
  """Names of all tasks of the suite, in the published order."""
  return list(TASKS)
