"""Tasks about strings: quotes, f-strings, file modes, strings against sets."""

import random

from sparse_interp.data import idioms_names as names
from sparse_interp.data import idioms_statements as statements
from sparse_interp.tasks import python_prompts as prompts
from sparse_interp.tasks.pairs import Pair, Task


def _single_double_quote(rng: random.Random, condition: str) -> Pair:
  """`print("Hello the world` -> `")`; `print('Hello the world` -> `')`."""
  _, text, pad = prompts.before(rng, condition, statements.QUOTES)
  start = f'{text}{pad}{rng.choice(names.CALLS)}('
  message = names.phrase(rng)
  return Pair(
    f'{start}"{message}', '")\n', f"{start}'{message}", "')\n", condition
  )


def _fstring_brace(rng: random.Random, condition: str) -> Pair:
  """`print(f"Hello the world` -> ` {`; `print("Hello the world` -> `")`."""
  scope, text, pad = prompts.before(rng, condition, statements.FORMATS)
  start = f'{text}{pad}{rng.choice(names.CALLS)}('
  message = names.phrase(rng)
  variable = rng.choice(scope.integers)
  return Pair(
    f'{start}f"{message}',
    f' {{{variable}}}")\n',
    f'{start}"{message}',
    '")\n',
    condition,
  )


def _with_open(rng: random.Random, condition: str) -> Pair:
  """`open('input.txt', '` -> `r`; `open('output.txt', '` -> `w`."""
  _, text, pad = prompts.before(
    rng, condition, statements.FILES, statements.SMALL
  )
  read, written = rng.choice(names.READ_FILES), rng.choice(names.WRITTEN_FILES)
  start = f"{text}{pad}with open('"
  end = f"{rng.choice(names.EXTENSIONS)}', '"
  return Pair(
    f'{start}{read}{end}', "r')", f'{start}{written}{end}', "w')", condition
  )


def _set_or_string(rng: random.Random, condition: str) -> Pair:
  """A variable made with `set()` -> `.add`; with `""` -> ` +=`."""
  return _accumulator(rng, condition, rng.choice(names.ACCUMULATORS))


def _set_or_string_fixedvarname(rng: random.Random, condition: str) -> Pair:
  """As set_or_string, but the variable is always called `current`."""
  return _accumulator(rng, condition, names.FIXED_ACCUMULATOR)


def _accumulator(rng: random.Random, condition: str, name: str) -> Pair:
  """`name = set()` or `name = ""`, other lines, a loop, and `name` in it."""
  scope, text, pad = prompts.before(
    rng, 'function', statements.QUOTES, statements.SMALL
  )
  rest = statements.small(rng, scope, pad)
  if condition == 'items':
    element = scope.item
    rest += f'{pad}for {element} in {scope.collection}:\n'
  else:
    element = rng.choice(names.INDICES)
    rest += f'{pad}for {element} in range({names.number(rng)}):\n'
  if rng.random() < 0.5:
    rest += statements.small(rng, scope, pad + '    ')
  rest += f'{pad}    {name}'
  return Pair(
    f'{text}{pad}{name} = set()\n{rest}',
    f'.add({element})\n',
    f'{text}{pad}{name} = ""\n{rest}',
    f' += str({element})\n',
    condition,
  )


TASKS = (
  Task(
    'single_double_quote',
    'Which quote closes the string.',
    prompts.PLACES,
    _single_double_quote,
  ),
  Task(
    'set_or_string',
    'Whether a variable was made as a set or as a string.',
    ('items', 'range'),
    _set_or_string,
  ),
  Task(
    'set_or_string_fixedvarname',
    'Whether the variable `current` was made as a set or as a string.',
    ('items', 'range'),
    _set_or_string_fixedvarname,
  ),
  Task(
    'with_open',
    'Whether a file is read or written, by its name.',
    prompts.PLACES,
    _with_open,
  ),
  Task(
    'fstring_brace',
    'Whether a variable follows in a string, which only an f-string allows.',
    prompts.PLACES,
    _fstring_brace,
  ),
)
