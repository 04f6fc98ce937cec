"""Poses any task to a tokenizer: one of the suite, or pairs of one's own.

A task is what has a `name` and `pairs(split, count, seed)`, which gives pairs
with `prompts` and `answers`; a pair may have a `condition`. Tasks of the suite
draw pairs without end, so that those that cannot be posed are replaced; others
have the pairs that they have.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.tasks.encoding import EncodedTask, encode_pair, encode_task
from sparse_interp.tasks.pairs import Pair, Task

# How many pairs of a split where nobody says it, and the longest prompt, in
# tokens: those of the quickstart.
PAIRS = {'train': 768, 'test': 256}
LENGTH = 80

# Fewer pairs than that say nothing.
_FEWEST = 8


def pose(
  task: Any,
  tokenizer: Tokenizer | None,
  split: str,
  count: int | None,
  length: int,
  seed: int,
  context_length: int,
) -> EncodedTask:
  """Pairs of a task as tokens.

  Args:
    task: as described above.
    tokenizer: the model's.
    split: 'train' or 'test'.
    count: of pairs; None for as many as PAIRS says, or as a task that does not
      draw them has.
    length: longest prompt in tokens; at most the model's context counts.
    seed: of the draw.
    context_length: most tokens that the model reads.

  Raises:
    ValueError: there is no tokenizer, or too few pairs can be posed.
  """
  if tokenizer is None:
    raise ValueError(
      'model must have a tokenizer to be given text, got one without; import '
      'it again with a tokenizer, or give Model one.'
    )
  length = min(length, context_length)
  if isinstance(task, Task):
    count = PAIRS[split] if count is None else count
    return encode_task(task, tokenizer, split, count, length, seed)
  pairs = _pairs_of(task, split, count, seed)
  fewest = _FEWEST if count is None else count
  return _encode(task.name, pairs, tokenizer, split, fewest, length)


def _encode(
  name: str,
  pairs: Sequence[Any],
  tokenizer: Tokenizer,
  split: str,
  fewest: int,
  length: int,
) -> EncodedTask:
  """All pairs that can be posed; raises ValueError for fewer than `fewest`."""
  rows, conditions, rejected = [], [], Counter()
  for given in pairs:
    (one, other), (answer, other_answer) = given.prompts, given.answers
    condition = getattr(given, 'condition', None) or 'all'
    pair = Pair(one, answer, other, other_answer, condition)
    encoded = encode_pair(pair, tokenizer, length)
    if isinstance(encoded, str):
      rejected[encoded] += 1
    else:
      rows.append(encoded)
      conditions.append(condition)
  if len(rows) < fewest:
    reasons = ', '.join(f'{n} times {why}' for why, n in rejected.items())
    raise ValueError(
      f'task must give at least {fewest} {split} pairs with this tokenizer and '
      f'context, got {len(rows)} of {name}: {reasons or "no further pairs"}; '
      'write more pairs.'
    )
  tokens = np.zeros((len(rows), 2, length), np.int32)
  for row, (prompts, _) in enumerate(rows):
    for side, prompt in enumerate(prompts):
      tokens[row, side, : len(prompt)] = prompt
  last = [[len(prompt) - 1 for prompt in prompts] for prompts, _ in rows]
  answers = [targets for _, targets in rows]
  return EncodedTask(
    name,
    tokens,
    np.array(last, np.int32),
    np.array(answers, np.int32),
    conditions,
    dict(rejected),
  )


def _pairs_of(task: Any, split: str, count: int | None, seed: int) -> list[Any]:
  """So many pairs; where nobody says how many, as many as it has."""
  if count is not None:
    return list(task.pairs(split, count, seed))
  count = PAIRS[split]
  while True:
    try:
      return list(task.pairs(split, count, seed))
    except ValueError:
      if count <= _FEWEST:
        raise
      count = max(_FEWEST, count * 3 // 4)
