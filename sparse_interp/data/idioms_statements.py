"""Statements of the idioms: each function writes one complete construct.

Every function takes a source of randomness, the scope whose names it may use
and the indentation, and returns whole lines. The conventions are strict, so
that what can be known is certain: a string is closed by the quote that opened
it, a condition compares with `==`, a counter is never `+=` (strings are) and so
on. What a construct opens it also closes: counting what was opened and what was
closed is enough to know what is open, in any order and at any distance.
"""

import random
from collections.abc import Callable

from sparse_interp.data import idioms_names as names

Statement = Callable[[random.Random, names.Scope, str], str]


def set_number(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`mode = 3`."""
  name = rng.choice(names.INTEGERS)
  if name not in scope.integers:
    scope.integers.append(name)
  return f'{pad}{name} = {names.number(rng)}\n'


def set_flag(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`ready = True`."""
  scope.flag_is_known = True
  value = 'True' if rng.random() < 0.7 else 'False'
  return f'{pad}{scope.flag} = {value}\n'


def quoted_call(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`print("Loading the record")`, with either quote."""
  quote = rng.choice('"\'')
  call = rng.choice(names.CALLS)
  return f'{pad}{call}({quote}{names.phrase(rng)}{quote})\n'


def formatted_call(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`print(f"Loading the record {mode}")`, the variable always last."""
  call = rng.choice(names.CALLS)
  variable = rng.choice(scope.integers)
  return f'{pad}{call}(f"{names.phrase(rng)} {{{variable}}}")\n'


def ternary(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`size = low if mode == 3 else high`."""
  low, high = rng.choice(names.TERNARIES)
  tested, target = rng.choice(scope.integers), rng.choice(names.INTEGERS)
  value = names.number(rng)
  return f'{pad}{target} = {low} if {tested} == {value} else {high}\n'


def number_list(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`values = [5, 3, 2]` or `values = [[5, 3], [2, 4]]`."""
  start = f'{pad}{rng.choice(names.TABLES)} = '
  if rng.random() < 0.5:
    return f'{start}[{names.row(rng)}]\n'
  count = rng.choice((1, 2, 2, 3))
  rows = ', '.join(f'[{names.row(rng)}]' for _ in range(count))
  return f'{start}[{rows}]\n'


def color_dict(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`codes = {5: "red", 3: "blue"}`."""
  entries = ', '.join(names.entry(rng) for _ in range(rng.choice((2, 3, 4))))
  return f'{pad}{rng.choice(names.TABLES)} = {{{entries}}}\n'


def swap(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`left, right = right, left`, perhaps after both are set."""
  one, other = scope.swap
  if rng.random() < 0.5:
    one, other = other, one
  text = ''
  if rng.random() < 0.4:
    text = f'{pad}{one} = {names.number(rng)}\n'
    text += f'{pad}{other} = {names.number(rng)}\n'
  return f'{text}{pad}{one}, {other} = {other}, {one}\n'


def lambda_value(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`rule = lambda cost: cost + 1`."""
  target, argument = rng.sample(names.CALLABLES, 2)
  value = names.number(rng)
  return f'{pad}{target} = lambda {argument}: {argument} + {value}\n'


def inner_function(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`def cost(value):` with one line that returns."""
  value = names.number(rng)
  name = rng.choice(names.CALLABLES)
  return f'{pad}def {name}(value):\n{pad}    return value + {value}\n'


def maybe_open(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`handle = open(path) if mode == 3 else None`."""
  tested = rng.choice(scope.integers)
  return (
    f'{pad}{rng.choice(names.HANDLES)} = open({rng.choice(names.PATHS)})'
    f' if {tested} == {names.number(rng)} else None\n'
  )


def with_path(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`with open(path) as f:` and one line that uses the file."""
  handle = rng.choice(names.HANDLES)
  use = rng.choice(('print', 'log', 'show'))
  return (
    f'{pad}with open({rng.choice(names.PATHS)}) as {handle}:\n'
    f'{pad}    {use}({handle})\n'
  )


def with_file(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`with open('input.txt', 'r') as f:`; the name decides the mode."""
  handle = rng.choice(names.HANDLES)
  extension = rng.choice(names.EXTENSIONS)
  if rng.random() < 0.5:
    stem, mode = rng.choice(names.READ_FILES), 'r'
    use = f'{scope.collection} = {handle}.read()'
  else:
    stem, mode = rng.choice(names.WRITTEN_FILES), 'w'
    use = f'{handle}.write({scope.collection})'
  return (
    f"{pad}with open('{stem}{extension}', '{mode}') as {handle}:\n"
    f'{pad}    {use}\n'
  )


def if_number(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`if mode == 3:`, then perhaps `elif mode == 5:` and `else:`."""
  tested = rng.choice(scope.integers)
  text = f'{pad}if {tested} == {names.number(rng)}:\n'
  text += body(rng, scope, pad + '    ')
  while rng.random() < 0.3:
    text += f'{pad}elif {tested} == {names.number(rng)}:\n'
    text += small(rng, scope, pad + '    ')
  if rng.random() < 0.4:
    text += f'{pad}else:\n{small(rng, scope, pad + "    ")}'
  return text


def if_flag(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`if ready == True:` and a body, after `ready = False` if need be."""
  text = '' if scope.flag_is_known else set_flag(rng, scope, pad)
  text += f'{pad}if {scope.flag} == True:\n'
  return text + body(rng, scope, pad + '    ')


def return_true(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`if mode == 3:` and `return True` under it."""
  tested = rng.choice(scope.integers)
  return f'{pad}if {tested} == {names.number(rng)}:\n{pad}    return True\n'


def while_true(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`while True:`, one line and `break`."""
  return f'{pad}while True:\n{small(rng, scope, pad + "    ")}{pad}    break\n'


def while_item(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`while node:` and what moves it on."""
  item = scope.item
  return f'{pad}while {item}:\n{pad}    {item} = {item}.next\n'


def for_item(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`for word in words:` and a body."""
  return (
    f'{pad}for {scope.item} in {scope.collection}:\n'
    f'{body(rng, scope, pad + "    ", scope.item)}'
  )


def for_range(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`for i in range(5):` and a body."""
  index = rng.choice(names.INDICES)
  return (
    f'{pad}for {index} in range({names.number(rng)}):\n'
    f'{body(rng, scope, pad + "    ", index)}'
  )


def for_enumerate(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """`for i, entry in enumerate(words):` and a body that calls with entry."""
  index = rng.choice(names.INDICES)
  element = rng.choice(names.ELEMENTS)
  return (
    f'{pad}for {index}, {element} in enumerate({scope.collection}):\n'
    f'{body(rng, scope, pad + "    ", element)}'
  )


def accumulate(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """A set or a string that is filled in a loop, under the same names."""
  name = names.accumulator(rng)
  is_set = rng.random() < 0.5
  text = f'{pad}{name} = {"set()" if is_set else chr(34) * 2}\n'
  if rng.random() < 0.4:
    text += small(rng, scope, pad)
  if rng.random() < 0.6:
    element = scope.item
    text += f'{pad}for {element} in {scope.collection}:\n'
  else:
    element = rng.choice(names.INDICES)
    text += f'{pad}for {element} in range({names.number(rng)}):\n'
  if rng.random() < 0.4:
    text += small(rng, scope, pad + '    ')
  use = f'.add({element})' if is_set else f' += str({element})'
  return f'{text}{pad}    {name}{use}\n'


def use_name(rng: random.Random, pad: str, name: str) -> str:
  """`print(word)`."""
  return f'{pad}{rng.choice(names.CALLS)}({name})\n'


def small(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """One line that opens no block."""
  return rng.choice(SMALL)(rng, scope, pad)


def body(
  rng: random.Random, scope: names.Scope, pad: str, name: str | None = None
) -> str:
  """The lines under a header: one or two, one of them using `name`."""
  text = ''
  if name is not None:
    text = use_name(rng, pad, name)
    if rng.random() < 0.6:
      return text
  if len(pad) <= _DEEPEST and rng.random() < 0.5:
    return text + statement(rng, scope, pad)
  return text + small(rng, scope, pad)


def statement(rng: random.Random, scope: names.Scope, pad: str) -> str:
  """One statement, in most cases of the families that the scope prefers."""
  families = FAMILIES
  if scope.theme and rng.random() < _THEME_FRACTION:
    families = scope.theme
  return rng.choice(rng.choice(families))(rng, scope, pad)


def draw_theme(rng: random.Random) -> tuple[names.Family, ...]:
  """The families that a program prefers: three, one perhaps twice."""
  return tuple(rng.choices(FAMILIES, k=3))


# Blocks stand at most this deep, in spaces.
_DEEPEST = 8
_THEME_FRACTION = 0.75

QUOTES: names.Family = (quoted_call,)
FORMATS: names.Family = (formatted_call, formatted_call, quoted_call)
CHOICES: names.Family = (ternary, ternary, if_number, set_number)
FLAGS: names.Family = (if_flag, set_flag)
RETURNS: names.Family = (return_true, while_true)
BRANCHES: names.Family = (if_number,)
LISTS: names.Family = (number_list,)
TABLES: names.Family = (number_list, color_dict)
SWAPS: names.Family = (swap,)
CALLABLES: names.Family = (lambda_value, inner_function)
HANDLES: names.Family = (maybe_open, with_path)
FILES: names.Family = (with_file,)
LOOPS: names.Family = (for_item, while_item)
RANGES: names.Family = (for_range, for_enumerate, for_enumerate)
ACCUMULATORS: names.Family = (accumulate,)
FAMILIES: tuple[names.Family, ...] = (
  QUOTES,
  FORMATS,
  CHOICES,
  FLAGS,
  RETURNS,
  BRANCHES,
  LISTS,
  TABLES,
  SWAPS,
  CALLABLES,
  HANDLES,
  FILES,
  LOOPS,
  RANGES,
  ACCUMULATORS,
  ACCUMULATORS,
)
SMALL: tuple[Statement, ...] = (
  set_number,
  set_number,
  set_flag,
  quoted_call,
  formatted_call,
)
