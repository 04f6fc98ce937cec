"""Tasks about brackets: lists against dicts, and the depth of lists."""

import random

from sparse_interp.data import idioms_names as names
from sparse_interp.data import idioms_statements as statements
from sparse_interp.tasks import python_prompts as prompts
from sparse_interp.tasks.pairs import Pair, Task


def _bracket_brace(rng: random.Random, condition: str) -> Pair:
  """`{5: "red", 3` -> `:`; `[5, 3` -> `,`."""
  _, text, pad = prompts.before(
    rng, condition, statements.TABLES, statements.SMALL
  )
  start = f'{text}{pad}{rng.choice(names.TABLES)} = '
  entries = [names.entry(rng) for _ in range(rng.choice((1, 2)))]
  keys = [entry.partition(':')[0] for entry in entries]
  last = names.number(rng)
  return Pair(
    f'{start}{{{", ".join([*entries, last])}',
    f': "{rng.choice(names.COLORS)}"',
    f'{start}[{", ".join([*keys, last])}',
    f', {names.number(rng)}',
    condition,
  )


def _bracket_counting(rng: random.Random, condition: str) -> Pair:
  """`[[5, 3` -> `]]`; `[5, 3` -> `]`."""
  _, text, pad = prompts.before(
    rng, 'function', statements.LISTS, statements.SMALL
  )
  start = f'{text}{pad}{rng.choice(names.TABLES)} = '
  rows = [names.row(rng)]
  if condition == 'second_row':
    rows.append(names.row(rng))
  return Pair(
    f'{start}[[{"], [".join(rows)}',
    ']]\n',
    f'{start}[{", ".join(rows)}',
    ']\n',
    condition,
  )


TASKS = (
  Task(
    'bracket_brace',
    'Whether a number stands in a dict or in a list.',
    prompts.PLACES,
    _bracket_brace,
  ),
  Task(
    'bracket_counting',
    'How many lists are open.',
    ('first_row', 'second_row'),
    _bracket_counting,
  ),
)
