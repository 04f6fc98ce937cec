"""The words that the idioms are made of, and the scope of one function.

A small vocabulary is the point: a model that sees a few million tokens can
learn what a construct does only when the words in it are few. The pools are
disjoint by role, so that a word alone tells what it is for, but never which of
two constructs it stands in: the names of loop variables are the same after
`for` and after `while`, those of tables the same for lists and dicts.

Headers (the `def` or `class` lines that open a program) fall into two kinds by
a checksum of their text: those kept for task prompts and those that idioms may
use. A prompt opens with a header of the first kind, so no prompt can be a part
of an idiom.
"""

import dataclasses
import random
import zlib
from collections.abc import Callable

# Statements that show the same choice, such as loops with `for` and `while`.
Family = tuple[Callable[..., str], ...]

# A collection and the name of one thing in it.
COLLECTIONS = {
  'words': 'word',
  'nodes': 'node',
  'lines': 'line',
  'rows': 'row',
  'users': 'user',
  'tasks': 'task',
  'points': 'point',
  'items': 'item',
}
INTEGERS = ('mode', 'level', 'size', 'state', 'depth', 'width', 'speed', 'step')
FLAGS = ('ready', 'done', 'active', 'valid', 'enabled', 'locked')
ACCUMULATORS = ('result', 'seen', 'group', 'cache', 'extra')
FIXED_ACCUMULATOR = 'current'
TABLES = ('codes', 'values', 'labels', 'options', 'scores', 'matrix')
TERNARIES = (
  ('low', 'high'),
  ('small', 'large'),
  ('short', 'long'),
  ('soft', 'hard'),
)
SWAPS = (
  ('left', 'right'),
  ('first', 'second'),
  ('start', 'end'),
  ('old', 'new'),
  ('x', 'y'),
)
CALLABLES = ('rule', 'score', 'key', 'rank', 'cost', 'weight')
INDICES = ('i', 'j', 'k')
ELEMENTS = ('entry', 'element', 'part', 'piece')
ATTRIBUTES = (
  'name',
  'age',
  'title',
  'color',
  'owner',
  'city',
  'email',
  'brand',
  'phone',
  'shape',
)
CLASSES = (
  'Person',
  'Car',
  'Book',
  'House',
  'Player',
  'Team',
  'Shop',
  'Order',
  'Store',
  'Event',
)
HANDLES = ('f', 'handle', 'stream')
PATHS = ('path', 'filename', 'target')
READ_FILES = ('input', 'source', 'config', 'train', 'raw')
WRITTEN_FILES = ('output', 'results', 'report', 'summary', 'backup')
EXTENSIONS = ('.txt', '.csv', '.json', '.log')
COLORS = ('red', 'blue', 'green', 'black', 'white', 'pink')
CALLS = ('print', 'log', 'show', 'warn')
VERBS = (
  'load',
  'save',
  'parse',
  'read',
  'find',
  'check',
  'update',
  'build',
  'merge',
  'split',
  'filter',
  'sort',
  'run',
  'make',
  'clean',
  'collect',
)
NOUNS = (
  'data',
  'table',
  'graph',
  'list',
  'text',
  'image',
  'game',
  'page',
  'model',
  'tree',
  'cart',
  'queue',
)
# Words of messages, by their place in it; none of them is a keyword or a name.
OPENINGS = (
  'Loading',
  'Saving',
  'Checking',
  'Missing',
  'Invalid',
  'Hello',
  'Welcome',
  'Please',
)
DETERMINERS = ('the', 'a', 'this', 'every', 'another')
ADJECTIVES = ('big', 'good', 'great', 'little', 'whole')
SUBJECTS = (
  'record',
  'message',
  'world',
  'request',
  'answer',
  'friend',
  'letter',
  'question',
)
ENDINGS = ('again', 'now', 'today', 'here', 'twice')

# One header in this many is kept for prompts.
_RESERVED_ONE_IN = 4


@dataclasses.dataclass
class Scope:
  """The names that the statements of one function share.

  Attributes:
    collection: The parameter that loops run over.
    item: One thing of the collection.
    integers: Names of whole numbers that are known so far, parameters first.
    flag: Name of a truth value.
    flag_is_known: Whether the flag has a value yet.
    swap: Two names that may be exchanged.
    parameters: The function's parameters, in order.
    theme: Families of statements that the function prefers.
  """

  collection: str
  item: str
  integers: list[str]
  flag: str
  flag_is_known: bool
  swap: tuple[str, str]
  parameters: list[str]
  theme: tuple[Family, ...]


def draw_scope(rng: random.Random, theme: tuple[Family, ...]) -> Scope:
  """Draws the names of one function, with two or three parameters."""
  collection = rng.choice(tuple(COLLECTIONS))
  integers = rng.sample(INTEGERS, rng.choice((1, 2)))
  flag = rng.choice(FLAGS)
  flag_is_known = len(integers) == 1 and rng.random() < 0.3
  return Scope(
    collection=collection,
    item=COLLECTIONS[collection],
    integers=integers,
    flag=flag,
    flag_is_known=flag_is_known,
    swap=rng.choice(SWAPS),
    parameters=[collection, *integers, *([flag] if flag_is_known else [])],
    theme=theme,
  )


def is_reserved(header: str) -> bool:
  """Whether a header is kept for task prompts (else it is for idioms)."""
  return zlib.crc32(header.encode()) % _RESERVED_ONE_IN == 0


def function_header(
  rng: random.Random,
  parameters: list[str],
  reserved: bool = False,
  default: str = '',
) -> str:
  r"""A `def` line at module level, of the kind asked for.

  Args:
    rng: Source of the function's name.
    parameters: Names of the parameters, in order.
    reserved: True for the headers of task prompts, False for idioms.
    default: What stands behind each parameter, such as '=None'.

  Returns:
    The line with its newline, such as 'def load_data(words, mode):\n'.
  """
  arguments = ', '.join(name + default for name in parameters)
  while True:
    name = f'{rng.choice(VERBS)}_{rng.choice(NOUNS)}'
    header = f'def {name}({arguments}):\n'
    if is_reserved(header) == reserved:
      return header


def class_header(
  rng: random.Random, count: int, reserved: bool = False
) -> tuple[str, list[str]]:
  """A `class` line and its `__init__` line, of the kind asked for.

  Args:
    rng: Source of the names.
    count: Number of attributes that the constructor takes.
    reserved: True for the headers of task prompts, False for idioms.

  Returns:
    The two lines with their newlines, and the names of the attributes.
  """
  while True:
    attributes = rng.sample(ATTRIBUTES, count)
    header = (
      f'class {rng.choice(CLASSES)}:\n'
      f'    def __init__(self, {", ".join(attributes)}):\n'
    )
    if is_reserved(header) == reserved:
      return header, attributes


def phrase(rng: random.Random) -> str:
  """A message of two to five words, without punctuation."""
  words = [rng.choice(OPENINGS), rng.choice(DETERMINERS)]
  if rng.random() < 0.4:
    words.append(rng.choice(ADJECTIVES))
  words.append(rng.choice(SUBJECTS))
  if rng.random() < 0.4:
    words.append(rng.choice(ENDINGS))
  return ' '.join(words)


def accumulator(rng: random.Random) -> str:
  """The name of a set or a string; the fixed one in a third of all cases."""
  return rng.choice(ACCUMULATORS) if rng.random() < 2 / 3 else FIXED_ACCUMULATOR


def number(rng: random.Random) -> str:
  """A one-digit number."""
  return '0123456789'[int(rng.random() * 10)]


def row(rng: random.Random) -> str:
  """Two to four numbers with commas."""
  count = rng.choice((2, 3, 4))
  return ', '.join(number(rng) for _ in range(count))


def entry(rng: random.Random) -> str:
  """`5: "red"`."""
  return f'{number(rng)}: "{rng.choice(COLORS)}"'
