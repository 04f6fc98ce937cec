"""Files of pairs that a run poses: the same ones until it has ended.

What they held is written into the configuration that the workdir keeps, so that
a run that goes on can tell pairs that have changed since.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from sparse_interp import tasks as tasks_lib
from sparse_interp.configs import fields
from sparse_interp.files import regular
from sparse_interp.tasks.encoding import EncodedTask
from sparse_interp.tasks.pairs import Task

_HASHES = 'task_hashes'


def remembered(
  config: config_dict.ConfigDict, workdir: str
) -> config_dict.ConfigDict:
  """The configuration with the hashes of the files of pairs that it names.

  Args:
    config: with `tasks`.
    workdir: of the run, begun or not.

  Returns:
    A copy; the configuration itself where it names no file.

  Raises:
    ValueError: a file holds no task, or others than when the run in the
      workdir began.
    OSError: a file cannot be read.
  """
  found = [task for task in tasks_of(config).values() if task.listed]
  if not found:
    return config
  _compare(found, _hashes_in(workdir), f'when the run in {workdir} began')
  copy = config.copy_and_resolve_references()
  with copy.unlocked():
    copy[_HASHES] = tuple((task.name, task.hash) for task in found)
  return copy


def tasks_of(config: config_dict.ConfigDict) -> dict[str, Task]:
  """The tasks asked for by name, all of the suite for 'all'.

  Raises:
    ValueError: a name is unknown, there is none, or a file holds no task, or
      others than those that `remembered` saw.
    OSError: a file cannot be read.
  """
  if config.tasks == 'all':
    return dict(tasks_lib.TASKS)
  names = fields.names_in(config.tasks)
  if not names:
    raise ValueError(
      'tasks must be all, or names or files of pairs with commas between, got '
      f'{config.tasks!r}; choose e.g. {next(iter(tasks_lib.TASKS))}.'
    )
  found = tasks_lib.get_tasks(names)
  _compare(found, dict(config.get(_HASHES, ())), 'when this run began')
  return {task.name: task for task in found}


def _compare(tasks: list[Task], known: Mapping[str, str], when: str) -> None:
  for task in tasks:
    if task.listed and task.hash != known.get(task.name, task.hash):
      raise ValueError(
        f'tasks: {task.listed.file} must hold the pairs that it held {when} '
        f'(hash {known[task.name][:12]}), got others (hash {task.hash[:12]}); '
        'put them back or choose another workdir.'
      )


def _hashes_in(workdir: str) -> dict[str, str]:
  """{task: hash} that the run of a workdir began with; empty if none did."""
  try:
    kept = json.loads(regular.read_bytes(pathlib.Path(workdir) / 'config.json'))
    return {str(name): str(found) for name, found in kept[_HASHES]}
  except (OSError, ValueError, RecursionError, KeyError, TypeError):
    return {}  # what is wrong with a workdir is for its claim to say


def entry(task: Task, *encoded: EncodedTask) -> dict[str, Any]:
  """What the summary says of a task's file; nothing of those of the suite.

  Args:
    task: any.
    *encoded: its pairs for training and tests, where they could be posed.
  """
  if task.listed is None:
    return {}
  return {
    'description': task.description,
    'pairs_file': {
      'file': task.listed.file,
      'sha256': task.hash,
      'left_out': dict(task.listed.left_out),
      'longer_answers': sum(one.longer_answers for one in encoded),
    },
  }


def line(
  task: Task, entry: Mapping[str, Any], train: EncodedTask, test: EncodedTask
) -> str:
  """What became of the pairs of a file, for the console.

  Args:
    task: that is listed.
    entry: of the task; see `entry`.
    train: its pairs for training.
    test: its pairs for tests.
  """
  said = entry['pairs_file']
  parts = [
    (
      f'{len(train.conditions)} train and {len(test.conditions)} test pairs of '
      f'{said["file"]}'
    )
  ]
  parts += [f'{n} left out, {why}' for why, n in said['left_out'].items()]
  for split, encoded in (('train', train), ('test', test)):
    parts += [
      f'{n} {split} pairs not posed, since {why}'
      for why, n in encoded.rejected.items()
    ]
  if said['longer_answers']:
    parts.append(
      f'of the answers of {said["longer_answers"]} only the first token counts'
    )
  return f'{task.name:<28} {"; ".join(parts)}'
