"""Poses a task to a model: so many of its pairs, as tokens."""

from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.tasks.encoding import EncodedTask, encode_task
from sparse_interp.tasks.pairs import Task

# How many pairs of a split where nobody says it, and the longest prompt, in
# tokens: those of the quickstart.
PAIRS = {'train': 768, 'test': 256}
LENGTH = 80


def pose(
  task: Task,
  tokenizer: Tokenizer | None,
  split: str,
  count: int | None,
  length: int,
  seed: int,
  context_length: int,
) -> EncodedTask:
  """Pairs of a task as tokens.

  Args:
    task: of the suite, or read from a file.
    tokenizer: the model's.
    split: 'train' or 'test'.
    count: of pairs, at most where they are listed; None for as many as PAIRS
      says.
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
  count = PAIRS[split] if count is None else count
  return encode_task(
    task, tokenizer, split, count, min(length, context_length), seed
  )
