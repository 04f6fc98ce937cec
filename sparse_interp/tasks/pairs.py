"""Pairs of prompts, and the tasks that draw them.

A task of the suite makes its pairs. Every program that a prompt shows opens
with a header (see `opening`), which alone decides whether the pair is for
training or for testing, so the two splits share no prompt, nor even the first
lines of one. A task of your own has its pairs listed; see `own`.
"""

import dataclasses
import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping

from sparse_interp.tasks import marking
from sparse_interp.tasks.splitting import SPLITS

# Draws per pair asked for, after which a task is taken to be exhausted.
_PATIENCE = 50

# Pairs whose text stands for those that a task can make.
_HASHED = 16

# Pairs that a notebook shows.
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two prompts that differ in one respect, each with the answer it calls for.

  Attributes:
    prompt_a: Text before the first answer.
    answer_a: What follows prompt_a and must not follow prompt_b; only its first
      token counts.
    prompt_b: Text before the second answer; it opens like prompt_a.
    answer_b: What follows prompt_b and must not follow prompt_a.
    condition: The variant of the task that the pair belongs to.
  """

  prompt_a: str
  answer_a: str
  prompt_b: str
  answer_b: str
  condition: str

  @property
  def prompts(self) -> tuple[str, str]:
    """Both prompts."""
    return self.prompt_a, self.prompt_b

  @property
  def answers(self) -> tuple[str, str]:
    """The answer that each prompt calls for."""
    return self.answer_a, self.answer_b


@dataclasses.dataclass(frozen=True)
class Listed:
  """The pairs of a task that somebody has written down.

  Attributes:
    train: groups of pairs; pairs of different groups share no prompt.
    test: groups for tests.
    hash: hex SHA-256 of all pairs with their conditions and splits; neither the
      order of lines nor their ends play a part.
    file: name of the file, without its directory.
    left_out: number of pairs that do not count, by reason.
  """

  train: tuple[tuple[Pair, ...], ...]
  test: tuple[tuple[Pair, ...], ...]
  hash: str
  file: str
  left_out: Mapping[str, int]

  def count(self, split: str) -> int:
    """Number of pairs in 'train' or 'test'."""
    return sum(map(len, getattr(self, split)))


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
  """A behaviour that is asked for by pairs of prompts.

  Attributes:
    name: The published name (Table 1 of the paper), or that of a file.
    description: What is decided, in one line.
    conditions: Variants under which the same behaviour is asked for.
    generate: Draws one pair of a condition; a function of the state of `rng`.
      None where the pairs are listed.
    listed: All pairs there are; None where they are generated.
  """

  name: str
  description: str
  conditions: tuple[str, ...]
  generate: Callable[[random.Random, str], Pair] | None = None
  listed: Listed | None = None

  @property
  def hash(self) -> str:
    """Hex SHA-256 of the pairs: all that are listed, or some that are made."""
    if self.listed is not None:
      return self.listed.hash
    made = itertools.islice(draw_pairs(self, 'test', 0), _HASHED)
    text = json.dumps([dataclasses.astuple(pair) for pair in made])
    return hashlib.sha256(text.encode()).hexdigest()

  def __repr__(self) -> str:
    return f'Task({self.name!r}: {" ".join(self._counts().split())})'

  def _repr_html_(self) -> str:
    """Some training pairs, what differs in their prompts marked."""
    shown = itertools.islice(draw_pairs(self, 'train', 0), _SHOWN)
    return marking.table(
      self.name,
      [self.description, self._counts()],
      [(pair.condition, pair.prompts, pair.answers) for pair in shown],
    )

  def _counts(self) -> str:
    variants = f'{len(self.conditions)} condition'
    variants += 's' * (len(self.conditions) != 1)
    if self.listed is None:
      return f'pairs made as asked for, {variants}'
    counts = (
      f'{self.listed.count("train"):,} train and '
      f'{self.listed.count("test"):,} test pairs of {self.listed.file}, '
      f'{variants}'
    )
    for reason, number in self.listed.left_out.items():
      counts += f', {number:,} left out: {reason}'
    return counts

  def pairs(self, split: str, count: int, seed: int = 0) -> list[Pair]:
    """See `make_pairs`."""
    return make_pairs(self, split, count, seed)


def opening(prompt: str) -> str:
  """The first lines of a prompt, through its first line with `):` at its end.

  A prompt without such a line is its own opening.
  """
  head, end, _ = prompt.partition('):\n')
  return head + end


def split_of(pair: Pair) -> str:
  """The split that a pair belongs to, decided by its prompts' opening.

  Raises:
    ValueError: If the two prompts do not open alike, since one split must hold
      both.
  """
  text = opening(pair.prompt_a)
  if text != opening(pair.prompt_b):
    raise ValueError(
      'pair.prompt_a and pair.prompt_b must have the same opening, got '
      f'{text!r} and {opening(pair.prompt_b)!r}; begin both with one header.'
    )
  digest = hashlib.blake2b(text.encode(), digest_size=1).digest()
  return SPLITS[digest[0] % 2]


def draw_pairs(task: Task, split: str, seed: int) -> Iterator[Pair]:
  """Yields pairs of one split, its conditions in turn, no prompt twice.

  Ends when many draws in a row have given nothing new. Pairs that are listed
  come all, in a random order, the share of every condition about the same from
  beginning to end; those that share a prompt follow one another.

  Args:
    task: The task to draw from.
    split: 'train' or 'test'.
    seed: Any integer; the same seed gives the same pairs.

  Raises:
    ValueError: If the split is unknown.
  """
  if split not in SPLITS:
    raise ValueError(
      f'tasks.split must be one of {", ".join(SPLITS)}, got {split!r}; '
      "choose e.g. 'test'."
    )
  rng = random.Random(f'{task.name} {split} {seed}')
  if task.listed is not None:
    yield from _in_order(getattr(task.listed, split), rng)
    return
  assert task.generate is not None  # else the pairs are listed
  seen: set[str] = set()
  given, failures = 0, 0
  while failures < _PATIENCE:
    condition = task.conditions[given % len(task.conditions)]
    pair = task.generate(rng, condition)
    if split_of(pair) != split or seen & {pair.prompt_a, pair.prompt_b}:
      failures += 1
      continue
    seen |= {pair.prompt_a, pair.prompt_b}
    given, failures = given + 1, 0
    yield pair


def _in_order(
  groups: tuple[tuple[Pair, ...], ...], rng: random.Random
) -> Iterator[Pair]:
  """The pairs of all groups, as `draw_pairs` says."""
  shuffled = rng.sample(groups, len(groups))
  of_condition: dict[str, list[tuple[Pair, ...]]] = {}
  for group in shuffled:
    of_condition.setdefault(group[0].condition, []).append(group)
  places = []
  for alike in of_condition.values():
    places += [((i + 0.5) / len(alike), group) for i, group in enumerate(alike)]
  for _, group in sorted(places, key=lambda place: place[0]):
    yield from rng.sample(group, len(group))


def make_pairs(task: Task, split: str, count: int, seed: int) -> list[Pair]:
  """Draws `count` pairs of a task; see `draw_pairs` for their order.

  Args:
    task: The task to draw from.
    split: 'train' or 'test'; the two share no prompt, whatever the seeds.
    count: Number of pairs.
    seed: Any integer; a smaller count gives a prefix of a larger one.

  Returns:
    The pairs.

  Raises:
    ValueError: If the split is unknown, or the task has fewer pairs.
  """
  pairs = list(itertools.islice(draw_pairs(task, split, seed), count))
  if len(pairs) < count:
    raise ValueError(
      f'tasks.count must be at most the number of distinct {split} pairs of '
      f'{task.name}, got {count} where {len(pairs)} were found; ask for fewer.'
    )
  return pairs
