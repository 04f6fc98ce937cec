"""Tasks about names: parameters, attributes, swaps and functions."""

import random

from sparse_interp.data import idioms_names as names
from sparse_interp.data import idioms_statements as statements
from sparse_interp.tasks import python_prompts as prompts
from sparse_interp.tasks.pairs import Pair, Task


def _final_kwarg(rng: random.Random, condition: str) -> Pair:
  """`def f(words=None, mode` -> `=None`; `def f(words, mode` -> `):`."""
  scope, text, pad = prompts.before(rng, 'function', statements.SMALL)
  text += f'{pad}return {rng.choice(scope.integers)}\n\n\n'
  text += f'def {rng.choice(names.VERBS)}_{rng.choice(names.NOUNS)}('
  count = 1 if condition == 'two_parameters' else 2
  *first, last = [
    rng.choice(tuple(names.COLLECTIONS)),
    *rng.sample(names.INTEGERS, count),
  ]
  return Pair(
    f'{text}{"".join(name + "=None, " for name in first)}{last}',
    '=None):\n',
    f'{text}{"".join(name + ", " for name in first)}{last}',
    '):\n',
    condition,
  )


def _class_init(rng: random.Random, condition: str) -> Pair:
  """`self.age =` -> ` age`, where other attributes were set before.

  The alternative is not published; here it is another argument of the same
  constructor that is not used yet, so that both prompts have the same
  arguments and the answer of one is the alternative of the other.
  """
  count = 4 if condition == 'four_arguments' else 5
  text, attributes = names.class_header(rng, count, reserved=True)
  if rng.random() < 0.5:
    text += f'        self.{rng.choice(names.INTEGERS)} = 0\n'
  one, other, *rest = rng.sample(attributes, count)
  for name in rest[: rng.choice((1, 2))]:
    text += f'        self.{name} = {name}\n'
  return Pair(
    f'{text}        self.{one} =',
    f' {one}\n',
    f'{text}        self.{other} =',
    f' {other}\n',
    condition,
  )


def _var_swap(rng: random.Random, condition: str) -> Pair:
  """`left, right = right,` -> ` left`, and the other way round."""
  scope, text, pad = prompts.before(rng, condition, statements.SMALL)
  one, other = scope.swap
  if rng.random() < 0.5:
    text += f'{pad}{one} = {names.number(rng)}\n'
    text += f'{pad}{other} = {names.number(rng)}\n'
  return Pair(
    f'{text}{pad}{one}, {other} = {other},',
    f' {one}\n',
    f'{text}{pad}{other}, {one} = {one},',
    f' {other}\n',
    condition,
  )


def _lambda_func(rng: random.Random, condition: str) -> Pair:
  """`rule = lambda cost` -> `:`; `def cost` -> `(` and its parameter."""
  _, text, pad = prompts.before(rng, condition, statements.CALLABLES)
  target, name = rng.sample(names.CALLABLES, 2)
  return Pair(
    f'{text}{pad}{target} = lambda {name}',
    f': {name} + {names.number(rng)}\n',
    f'{text}{pad}def {name}',
    '(value):\n',
    condition,
  )


TASKS = (
  Task(
    'final_kwarg',
    'Whether the last parameter has a default, as those before it.',
    ('two_parameters', 'three_parameters'),
    _final_kwarg,
  ),
  Task(
    'class_init',
    'Which argument is kept under the name of an attribute.',
    ('four_arguments', 'five_arguments'),
    _class_init,
  ),
  Task(
    'var_swap',
    'Which name completes an exchange of two variables.',
    prompts.PLACES,
    _var_swap,
  ),
  Task(
    'lambda_func',
    'Whether a name is the parameter of a lambda or a function.',
    prompts.PLACES,
    _lambda_func,
  ),
)
