"""The examples in docstrings are true: those of every module that has some."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
  '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  for path in (ROOT / 'sparse_interp').rglob('*.py')
  if '>>>' in path.read_text()
)


@pytest.mark.parametrize('name', MODULES)
def test_examples_are_true(name):
  module = importlib.import_module(name.removesuffix('.__init__'))
  result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
  assert not result.failed
  # The finder sees functions alone, and not what others have made of them.
  source = pathlib.Path(module.__file__).read_text()
  assert result.attempted == source.count('>>> ')


def test_there_are_examples():
  assert 'sparse_interp.sparsity.schedules' in MODULES
