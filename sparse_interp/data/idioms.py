"""Simple, repetitive Python programs from a seed: the `idioms` corpus.

The published models learned first from a large set of especially simple
programs in the spirit of TinyStories (section 3 of the paper). This is a small
generator in its place: programs of a few functions, perhaps a class before
them and a few lines of script after, all made of the constructs that the tasks
ask about, in strict conventions and few words.
"""

import random
from collections.abc import Iterator

from sparse_interp.data import idioms_names as names
from sparse_interp.data import idioms_statements as statements

_INDENT = '    '
_BETWEEN = '\n\n'


def function(rng: random.Random, theme: tuple[names.Family, ...]) -> str:
  """A function at module level: a header, statements, mostly a return."""
  scope = names.draw_scope(rng, theme)
  text = names.function_header(rng, scope.parameters)
  for _ in range(rng.choice((3, 3, 4))):
    text += statements.statement(rng, scope, _INDENT)
  if rng.random() < 0.2:
    return text + statements.set_number(rng, scope, _INDENT)
  return text + f'{_INDENT}return {rng.choice(scope.integers)}\n'


def function_with_defaults(
  rng: random.Random, theme: tuple[names.Family, ...]
) -> str:
  """A function whose parameters all default to None.

  It stands last in a program, so that `=None` is never behind the header of a
  function without defaults.
  """
  scope = names.draw_scope(rng, theme)
  integers = rng.sample(names.INTEGERS, rng.choice((1, 2, 2)))
  scope.integers = integers[:]
  header = names.function_header(
    rng, [scope.collection, *integers], default='=None'
  )
  text = f'{header}{_INDENT}{scope.collection} = {scope.collection} or []\n'
  for _ in range(2):
    text += statements.statement(rng, scope, _INDENT)
  return text + f'{_INDENT}return {scope.collection}\n'


def class_definition(rng: random.Random) -> str:
  """A class whose constructor keeps its arguments, and perhaps a method."""
  header, attributes = names.class_header(rng, rng.choice((3, 4, 5)))
  text = header
  if rng.random() < 0.3:
    text += f'        self.{rng.choice(names.INTEGERS)} = 0\n'
  if rng.random() < 0.6:
    attributes = rng.sample(attributes, len(attributes))
  for name in attributes:
    text += f'        self.{name} = {name}\n'
  if rng.random() < 0.4:
    name = rng.choice(attributes)
    text += f'\n    def get_{name}(self):\n        return self.{name}\n'
  return text


def script(rng: random.Random) -> str:
  """A few lines at module level, with a loop."""
  scope = names.draw_scope(rng, ())
  text = ''
  if rng.random() < 0.4:
    text += statements.small(rng, scope, '')
  if rng.random() < 0.6:
    text += f'for {scope.item} in {scope.collection}:\n'
    text += statements.use_name(rng, _INDENT, scope.item)
  else:
    index = rng.choice(names.INDICES)
    text += f'for {index} in range({names.number(rng)}):\n'
    text += statements.use_name(rng, _INDENT, index)
  if rng.random() < 0.4:
    text += statements.small(rng, scope, _INDENT)
  return text


def program(rng: random.Random) -> str:
  """One program of about 60 to 200 tokens; always valid Python.

  Args:
    rng: Source of randomness; the program is a function of its state.

  Returns:
    The text, ending in one newline.
  """
  units = []
  theme = statements.draw_theme(rng)
  kind = rng.random()
  if kind < 0.3:
    units.append(class_definition(rng))
  units.append(function(rng, theme))
  if kind > 0.75:
    units.append(function(rng, theme))
  elif kind > 0.45:
    units.append(function_with_defaults(rng, theme))
  if rng.random() < 0.45:
    units.append(script(rng))
  return _BETWEEN.join(units)


def documents(seed: int, max_bytes: int) -> Iterator[str]:
  """Yields programs until `max_bytes` of text have been given.

  Args:
    seed: Any integer; the same seed gives the same programs.
    max_bytes: Total length in bytes; the last program may go beyond it.

  Yields:
    Programs. Two may be equal (corpora remove duplicates).
  """
  rng = random.Random(seed)
  size = 0
  while size < max_bytes:
    text = program(rng)
    size += len(text)
    yield text
