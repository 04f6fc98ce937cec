"""`import sparse_interp as si`: what it gives, and what it costs."""

import inspect
import pathlib
import subprocess
import sys
import time

import pytest

import sparse_interp as si

ROOT = pathlib.Path(__file__).parents[1]
NAMES = (
  'Circuit',
  'GPT',
  'GPTConfig',
  'Model',
  'PruneConfig',
  'audit',
  'extract',
  'load',
  'pretrain',
  'prune',
  'task',
  'task_names',
  'write_page',
)


def _python(code: str) -> str:
  return subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  ).stdout


def test_importing_the_package_imports_nothing_large():
  heavy = ('jax', 'numpy', 'flax', 'orbax', 'tokenizers', 'ml_collections')
  code = f'import sys, sparse_interp; print(set({heavy}) & set(sys.modules))'
  assert _python(code).strip() == 'set()'


def test_importing_the_package_is_quick():
  # Time of the process, since a busy machine makes anything slow.
  code = (
    'import time; begun = time.process_time(); import sparse_interp; '
    'dir(sparse_interp); print(time.process_time() - begun)'
  )
  assert float(_python(code)) < 0.2


@pytest.mark.parametrize('name', NAMES)
def test_every_public_name_is_there_and_says_what_it_is(name):
  assert name in dir(si)
  found = getattr(si, name)
  assert callable(found)
  assert found.__name__ == name
  assert inspect.getdoc(found)


def test_no_public_name_is_that_of_a_room_or_module():
  # Once a module is imported, it takes the place of what has its name.
  places = (ROOT / 'sparse_interp').iterdir()
  taken = {path.stem for path in places if path.name != '__init__.py'}
  assert taken.isdisjoint(si.__all__)
  assert set(NAMES) <= set(si.__all__)


def test_names_stay_what_they_are_after_all_is_imported():
  code = (
    'import sparse_interp as si\n'
    'import sparse_interp.main\n'
    'print([n for n in si.__all__ if not callable(getattr(si, n))])'
  )
  assert _python(code).strip().endswith('[]')


def test_what_there_is_not_is_no_attribute():
  with pytest.raises(AttributeError, match='has no attribute'):
    _ = si.nothing
  assert not hasattr(si, '__path_of_nothing__')


def test_the_suite_is_listed_and_each_task_gives_pairs():
  begun = time.process_time()
  assert len(si.task_names()) == 20
  task = si.task(si.task_names()[0])
  pairs = task.pairs('test', 3, 0)
  assert len(pairs) == 3
  assert pairs == task.pairs('test', 3, seed=0)
  for pair in pairs:
    assert pair.prompts == (pair.prompt_a, pair.prompt_b)
    assert pair.answers == (pair.answer_a, pair.answer_b)
  assert time.process_time() - begun < 10
  with pytest.raises(ValueError, match="got 'nothing'"):
    si.task('nothing')
