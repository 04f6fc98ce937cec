"""Tasks about statements and blocks: what kind of line is being written."""

import random

from sparse_interp.data import idioms_names as names
from sparse_interp.data import idioms_statements as statements
from sparse_interp.tasks import python_prompts as prompts
from sparse_interp.tasks.pairs import Pair, Task


def _with_as(rng: random.Random, condition: str) -> Pair:
  """`with open(path)` -> ` as`; `f = open(path)` -> ` if`.

  The alternative is not published; an assignment that goes on after the
  bracket keeps the bracket a token of its own in both prompts.
  """
  scope, text, pad = prompts.before(rng, condition, statements.HANDLES)
  handle = rng.choice(names.HANDLES)
  call = f'open({rng.choice(names.PATHS)})'
  tested = rng.choice(scope.integers)
  return Pair(
    f'{text}{pad}with {call}',
    f' as {handle}:\n',
    f'{text}{pad}{handle} = {call}',
    f' if {tested} == {names.number(rng)} else None\n',
    condition,
  )


def _for_while(rng: random.Random, condition: str) -> Pair:
  """`for node` -> ` in`; `while node` -> `:`."""
  scope, text, pad = prompts.before(rng, condition, statements.LOOPS)
  return Pair(
    f'{text}{pad}for {scope.item}',
    f' in {scope.collection}:\n',
    f'{text}{pad}while {scope.item}',
    ':\n',
    condition,
  )


def _else_elif(rng: random.Random, condition: str) -> Pair:
  """`else` -> `:`; `elif` -> the variable that the `if` tested.

  Here the evidence is the last token itself, as the published answers imply.
  """
  scope, text, pad = prompts.before(
    rng, 'function', statements.CHOICES, statements.SMALL
  )
  tested = rng.choice(scope.integers)
  text += f'{pad}if {tested} == {names.number(rng)}:\n'
  text += statements.small(rng, scope, pad + '    ')
  if condition == 'after_elif':
    text += f'{pad}elif {tested} == {names.number(rng)}:\n'
    text += statements.small(rng, scope, pad + '    ')
  return Pair(
    f'{text}{pad}else', ':\n', f'{text}{pad}elif', f' {tested}', condition
  )


def _if_ternary(rng: random.Random, condition: str) -> Pair:
  """`if mode == 3` -> `:`; `size = low if mode == 3` -> ` else`."""
  scope, text, pad = prompts.before(rng, condition, statements.CHOICES)
  low, high = rng.choice(names.TERNARIES)
  target = rng.choice(names.INTEGERS)
  question = f'if {rng.choice(scope.integers)} == {names.number(rng)}'
  return Pair(
    f'{text}{pad}{question}',
    ':\n',
    f'{text}{pad}{target} = {low} {question}',
    f' else {high}\n',
    condition,
  )


def _if_equals(rng: random.Random, condition: str) -> Pair:
  """`if mode` -> ` ==`; `mode` at the start of a line -> ` =`."""
  scope, text, pad = prompts.before(rng, condition, statements.BRANCHES)
  name = rng.choice(scope.integers)
  value = names.number(rng)
  return Pair(
    f'{text}{pad}if {name}',
    f' == {value}:\n',
    f'{text}{pad}{name}',
    f' = {value}\n',
    condition,
  )


def _var_if(rng: random.Random, condition: str) -> Pair:
  """`if ready == True` -> `:` and newline; `ready = True` -> newline."""
  scope, text, pad = prompts.before(rng, condition, statements.FLAGS)
  return Pair(
    f'{text}{pad}if {scope.flag} == True',
    ':\n',
    f'{text}{pad}{scope.flag} = True',
    '\n',
    condition,
  )


def _while_return_true(rng: random.Random, condition: str) -> Pair:
  """`while True` -> `:` and newline; `return True` -> newline."""
  _, text, pad = prompts.before(rng, condition, statements.RETURNS)
  return Pair(
    f'{text}{pad}while True',
    ':\n',
    f'{text}{pad}return True',
    '\n',
    condition,
  )


def _enumerate_range(rng: random.Random, condition: str) -> Pair:
  """`for i, entry in` -> ` enumerate`; `for i in` -> ` range`."""
  scope, text, pad = prompts.before(rng, condition, statements.RANGES)
  index = rng.choice(names.INDICES)
  element = rng.choice(names.ELEMENTS)
  return Pair(
    f'{text}{pad}for {index}, {element} in',
    f' enumerate({scope.collection}):\n',
    f'{text}{pad}for {index} in',
    f' range({names.number(rng)}):\n',
    condition,
  )


def _indent_for(rng: random.Random, condition: str) -> Pair:
  """A `for` line in a function -> eight spaces; below it -> four."""
  scope, text, pad = prompts.before(rng, 'function', statements.LOOPS)
  text += statements.set_number(rng, scope, pad)
  if condition == 'items':
    name = scope.item
    line = f'for {name} in {scope.collection}:\n'
  else:
    name = rng.choice(names.INDICES)
    line = f'for {name} in range({names.number(rng)}):\n'
  use = statements.use_name(rng, '', name)
  return Pair(
    f'{text}{pad}{line}',
    f'{pad}    {use}',
    f'{text}\n\n{line}',
    f'    {use}',
    condition,
  )


TASKS = (
  Task(
    'with_as',
    'Whether open(...) stands in a with statement or in an assignment.',
    prompts.PLACES,
    _with_as,
  ),
  Task(
    'for_while',
    'Whether a name stands in a for loop or in a while loop.',
    prompts.PLACES,
    _for_while,
  ),
  Task(
    'else_elif',
    'Whether a branch has a condition.',
    ('after_if', 'after_elif'),
    _else_elif,
  ),
  Task(
    'if_ternary',
    'Whether a condition opens a block or stands in an expression.',
    prompts.PLACES,
    _if_ternary,
  ),
  Task(
    'indent_for',
    'How far the line after a for line is indented.',
    ('items', 'range'),
    _indent_for,
  ),
  Task(
    'if_equals',
    'Whether a name is compared or assigned.',
    prompts.PLACES,
    _if_equals,
  ),
  Task(
    'enumerate_range',
    'Whether a for loop has two variables or one.',
    prompts.PLACES,
    _enumerate_range,
  ),
  Task(
    'var_if',
    'Whether a name is compared with True or set to it.',
    prompts.PLACES,
    _var_if,
  ),
  Task(
    'while_return_true',
    'Whether True is the condition of a loop or returned.',
    ('branch', 'loop'),
    _while_return_true,
  ),
)
