"""Pairs are reproducible, distinct, and on one side of the split."""

import random

import pytest

from sparse_interp.tasks import TASKS, get_tasks
from sparse_interp.tasks.pairs import Pair, Task, make_pairs, opening, split_of


def _task(generate) -> Task:
  return Task('example', 'An example.', ('one', 'two'), generate)


def test_the_published_tasks_are_there_in_the_published_order():
  assert len(TASKS) == 20
  assert list(TASKS)[:3] == [
    'single_double_quote',
    'final_kwarg',
    'set_or_string',
  ]
  assert list(TASKS)[-1] == 'while_return_true'
  assert [task.name for task in TASKS.values()] == list(TASKS)


def test_tasks_are_given_in_the_order_asked_for():
  tasks = get_tasks(['var_if', 'with_as'])
  assert [task.name for task in tasks] == ['var_if', 'with_as']


def test_an_unknown_task_is_named_with_the_known_ones():
  with pytest.raises(ValueError, match=r"tasks must be among .*'quotes'"):
    get_tasks(['with_as', 'quotes'])


def test_an_unknown_split_is_refused():
  with pytest.raises(ValueError, match=r"tasks\.split must be one of .*'dev'"):
    make_pairs(TASKS['var_if'], 'dev', 1, 0)


def test_the_same_seed_gives_the_same_pairs_and_fewer_give_a_prefix():
  task = TASKS['with_as']
  pairs = make_pairs(task, 'train', 20, 5)
  assert make_pairs(task, 'train', 20, 5) == pairs
  assert make_pairs(task, 'train', 8, 5) == pairs[:8]
  assert not set(make_pairs(task, 'train', 20, 6)) & set(pairs)


def test_conditions_come_in_turn():
  pairs = make_pairs(TASKS['set_or_string'], 'test', 6, 0)
  assert [pair.condition for pair in pairs] == ['items', 'range'] * 3


def test_an_opening_ends_with_the_first_header():
  prompt = 'class A:\n    def __init__(self, b):\n        def c():\n'
  assert opening(prompt) == 'class A:\n    def __init__(self, b):\n'
  assert opening('no header') == 'no header'


def test_the_opening_alone_decides_the_split():
  def pair(rest: str) -> Pair:
    header = 'def f(a):\n'
    return Pair(header + rest, 'x', header + rest + ' ', 'y', 'one')

  assert len({split_of(pair(str(number))) for number in range(20)}) == 1


def test_prompts_that_open_differently_are_refused():
  with pytest.raises(ValueError, match='must have the same opening'):
    split_of(Pair('def f(a):\n', 'x', 'def g(a):\n', 'y', 'one'))


def test_an_exhausted_task_says_how_many_pairs_it_has():
  def generate(rng: random.Random, condition: str) -> Pair:
    header = f'def f{rng.randrange(4)}():\n'
    return Pair(header + 'a', 'x', header + 'b', 'y', condition)

  with pytest.raises(ValueError, match=r'got 50 where \d were found'):
    make_pairs(_task(generate), 'train', 50, 0)


def test_no_prompt_is_given_twice_even_in_another_pair():
  def generate(rng: random.Random, condition: str) -> Pair:
    header = f'def f{rng.randrange(40)}():\n'
    return Pair(
      header + 'a', 'x', header + f'b{rng.randrange(9)}', 'y', condition
    )

  pairs = make_pairs(_task(generate), 'train', 10, 0)
  assert len({pair.prompt_a for pair in pairs}) == 10
