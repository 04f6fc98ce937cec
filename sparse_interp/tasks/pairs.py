"""Pairs of prompts, and the tasks that draw them.

Every program that a prompt shows opens with a header (see `opening`). The
header alone decides whether the pair is for training or for testing, so the two
splits share no prompt, nor even the first lines of one.
"""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator

SPLITS = ('train', 'test')

# Draws per pair asked for, after which a task is taken to be exhausted.
_PATIENCE = 50


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
class Task:
  """A behaviour that is asked for by pairs of prompts.

  Attributes:
    name: The published name (Table 1 of the paper).
    description: What is decided, in one line.
    conditions: Variants under which the same behaviour is asked for.
    generate: Draws one pair of a condition; a function of the state of `rng`.
  """

  name: str
  description: str
  conditions: tuple[str, ...]
  generate: Callable[[random.Random, str], Pair]

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

  Ends when many draws in a row have given nothing new.

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


def make_pairs(task: Task, split: str, count: int, seed: int) -> list[Pair]:
  """Draws `count` pairs of a task, all prompts of which are distinct.

  Args:
    task: The task to draw from.
    split: 'train' or 'test'; the two share no prompt, whatever the seeds.
    count: Number of pairs.
    seed: Any integer; a smaller count gives a prefix of a larger one.

  Returns:
    The pairs, with the task's conditions in turn.

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
