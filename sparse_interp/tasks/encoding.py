"""From pairs of prompts to arrays of tokens."""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.tasks.pairs import Pair, Task, draw_pairs

SAME_ANSWER = 'both answers start with the same token'
MERGED = 'the answer merges with the end of the prompt'
TOO_LONG = 'a prompt is longer than the context'
OTHER_FORM = "the text is not in the tokenizer's normal form (NFC)"

# Of a task whose pairs are listed, fewer than were asked for will do, down to
# these.
FEWEST = {'train': 32, 'test': 16}

# What can be done about pairs that somebody has written, by what is wrong.
_REMEDIES = {
  SAME_ANSWER: 'choose answers that differ in their first token',
  MERGED: "begin answers with the space before them (' is') and end prompts "
  'without it',
  TOO_LONG: 'shorten the prompts or allow a longer context',
  OTHER_FORM: "write unicodedata.normalize('NFC', text)",
}

# A task is given up when after this many pairs, and this many per pair asked
# for, too few could be posed.
_MIN_DRAWN = 50
_MAX_DRAWN_PER_PAIR = 5


@dataclasses.dataclass(frozen=True)
class EncodedTask:
  """Pairs of one task and split as tokens.

  Attributes:
    name: The task's name.
    tokens: int32 (pairs, 2, length); `<|endoftext|>`, the prompt, then zeros.
    last: int32 (pairs, 2); index of the last token of the prompt.
    answers: int32 (pairs, 2); first token of answer_a and of answer_b. On side
      0 the first is right and on side 1 the second.
    conditions: The condition of each pair.
    rejected: Number of pairs that could not be posed, by reason.
    longer_answers: Number of pairs with an answer of several tokens, of which
      the first one counts.
  """

  name: str
  tokens: np.ndarray
  last: np.ndarray
  answers: np.ndarray
  conditions: list[str]
  rejected: dict[str, int]
  longer_answers: int = 0


def encode_pair(
  pair: Pair, tokenizer: Tokenizer, length: int
) -> tuple[list[list[int]], list[list[int]]] | str:
  """Encodes both prompts of a pair and their answers.

  Each answer is encoded together with its prompt, as the text would be in
  training.

  Args:
    pair: The pair.
    tokenizer: Gives the tokens.
    length: Greatest number of tokens of a prompt, with `<|endoftext|>`.

  Returns:
    The tokens of both prompts and of both answers, of which the first ones are
    the targets; or, when the pair cannot be posed, the reason.
  """
  prompts, answers = [], []
  for prompt, answer in zip(pair.prompts, pair.answers, strict=True):
    if not (
      tokenizer.can_encode(prompt) and tokenizer.can_encode(prompt + answer)
    ):
      return OTHER_FORM
    tokens = tokenizer.encode(prompt)
    whole = tokenizer.encode(prompt + answer)
    if whole[: len(tokens)] != tokens or len(whole) == len(tokens):
      return MERGED
    prompts.append([tokenizer.eot, *tokens])
    answers.append(whole[len(tokens) :])
  if answers[0][0] == answers[1][0]:
    return SAME_ANSWER
  if max(len(tokens) for tokens in prompts) > length:
    return TOO_LONG
  return prompts, answers


def encode_task(
  task: Task,
  tokenizer: Tokenizer,
  split: str,
  count: int,
  length: int,
  seed: int,
  progress: Callable[[int, int], None] | None = None,
) -> EncodedTask:
  """Draws pairs and encodes them until `count` could be posed.

  Args:
    task: The task to draw from.
    tokenizer: The model's tokenizer.
    split: 'train' or 'test'.
    count: Number of pairs in the result. Where the pairs of a task are listed
      and fewer can be posed, all of these, if there are at least as many as
      FEWEST says.
    length: Tokens per prompt, padding included; at most the model's context.
    seed: Any integer; the same seed gives the same pairs.
    progress: Called as progress(pairs done, pairs in all) after each.

  Returns:
    The encoded pairs and how many were rejected.

  Raises:
    ValueError: If the split is unknown, or the task cannot be posed: too few
      pairs pass, and the message says why.
  """
  least = count
  if task.listed is not None:
    least = min(count, FEWEST.get(split, count))
    count = min(count, max(task.listed.count(split), least))
  tokens = np.zeros((count, 2, length), np.int32)
  last = np.zeros((count, 2), np.int32)
  answers = np.zeros((count, 2), np.int32)
  conditions: list[str] = []
  rejected: collections.Counter[str] = collections.Counter()
  most = max(_MIN_DRAWN, _MAX_DRAWN_PER_PAIR * count)
  longer = 0
  for pair in draw_pairs(task, split, seed):
    row = len(conditions)
    if row == count or row + rejected.total() == most:
      break
    encoded = encode_pair(pair, tokenizer, length)
    if isinstance(encoded, str):
      rejected[encoded] += 1
      continue
    prompts, whole = encoded
    longer += max(map(len, whole)) > 1
    for side, prompt in enumerate(prompts):
      tokens[row, side, : len(prompt)] = prompt
      last[row, side] = len(prompt) - 1
    answers[row] = [answer[0] for answer in whole]
    conditions.append(pair.condition)
    if progress is not None:
      progress(row + 1, count)
  found = len(conditions)
  if found < least:
    raise ValueError(_unposable(task, split, least, found, rejected))
  return EncodedTask(
    *(task.name, tokens[:found], last[:found], answers[:found]),
    *(conditions, dict(rejected), longer),
  )


def _unposable(
  task: Task,
  split: str,
  least: int,
  accepted: int,
  rejected: collections.Counter[str],
) -> str:
  """One line that says why a task gave too few pairs."""
  reasons = ', '.join(
    f'{number} times {reason}' for reason, number in rejected.most_common()
  )
  number, remedy = f'{least}', 'ask for fewer pairs'
  remedy += ', a longer context or a tokenizer trained on this text'
  if task.listed is not None:
    number, remedy = f'at least {least}', 'write more pairs'
    for reason, _ in rejected.most_common(1):
      remedy = f'{_REMEDIES[reason]}, or {remedy}'
  return (
    f'tasks: {task.name} must give {number} {split} pairs with this tokenizer '
    f'and context, got {accepted}: {reasons or "no further pairs"}; {remedy}.'
  )
