"""Versions are kept with the place where they took over."""

import importlib.metadata
import platform

import pytest

from sparse_interp.files import versions, workdir


def test_all_that_decides_numbers_is_named():
  found = versions.current()
  assert found['code'] == workdir.code_version()
  assert found['python'] == platform.python_version()
  libraries = 'jax jaxlib flax optax orbax-checkpoint numpy tokenizers grain'
  for name in libraries.split():
    assert found[name] == importlib.metadata.version(name)


def test_an_entry_is_added_where_something_changed():
  a, b = {'jax': '1', 'numpy': '2'}, {'jax': '2', 'numpy': '2'}
  history = versions.add([], a, phase='pretrain', from_step=0)
  assert versions.add(history, a, phase='pretrain', from_step=9) == history
  history = versions.add(history, b, phase='pretrain', from_step=10)
  history = versions.add(history, a, phase='prune', from_task='x')
  assert history == [
    {'phase': 'pretrain', 'from_step': 0, 'versions': a},
    {'phase': 'pretrain', 'from_step': 10, 'versions': b},
    {'phase': 'prune', 'from_task': 'x', 'versions': a},
  ]


@pytest.mark.parametrize(
  ('now', 'difference'),
  [
    ({'a': '1', 'b': '2'}, ''),
    ({'a': '3', 'b': '2'}, 'a 1 -> 3'),
    ({'b': '4', 'c': '5'}, 'a 1 -> none, b 2 -> 4, c none -> 5'),
  ],
)
def test_the_difference_is_said_in_words(now, difference):
  history = [{'versions': {'a': '1', 'b': '2'}}]
  assert versions.difference(history, now) == difference
  assert versions.difference([], now) == ''
