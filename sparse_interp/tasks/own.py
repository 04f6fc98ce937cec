"""A behaviour of your own: a file with one pair of prompts a line.

    {"prompts": ["The key", "The keys"], "answers": [" is", " are"]}

A line may also have a "condition" (a variant of the behaviour, 'none' without
it) and a "split" ('train' or 'test'; by hash of the prompt without it). The
file's name, without its ending, is the task's.
"""

import hashlib
import json
import os
import pathlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sparse_interp.files import json_text, regular
from sparse_interp.tasks.pairs import Listed, Pair, Task
from sparse_interp.tasks.splitting import SPLITS, split_pairs

TWICE = 'there more than once'
NO_CONDITION = 'none'

_MOST_BYTES = 64 * 2**20
_MOST_CONDITIONS = 50
_LONGEST_CONDITION = 60
_FIELDS = ('prompts', 'answers', 'condition', 'split')

# Names become directories, and stand in tables.
_NAME = re.compile(r'[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?')
_ENDING = re.compile(r'(?:\.[A-Za-z0-9]{0,16})?')


class _Row(NamedTuple):
  pair: Pair
  split: str | None


def read_task(path: str | os.PathLike[str]) -> Task:
  """Reads a task from a file of JSON lines; see the module.

  A pair that is there again, or with its sides exchanged, counts once.

  Args:
    path: of the file, UTF-8; ~ stands for the home directory.

  Returns:
    The task, with all its pairs in `listed`.

  Raises:
    OSError: there is no such file, or it may not be read.
    ValueError: the file's name is no name for a task; it is no regular file or
      too large; lines are damaged, pairs contradict one another or stand in
      both splits (the message counts them); or a split is empty.
  """
  path = pathlib.Path(os.path.expanduser(path))
  name = _name(path)
  rows = _rows(path)
  _check_conditions(path, rows)
  _check_contradictions(path, rows)
  pairs, left_out = _once(rows)
  try:
    groups = split_pairs(
      [row.pair.prompts for row in pairs], [row.split for row in pairs]
    )
  except ValueError as error:
    raise ValueError(
      f'{path} must have each prompt in one split, got {error}.'
    ) from None
  of_split = {
    split: tuple(
      tuple(pairs[i].pair for i in group.members)
      for group in groups
      if group.split == split
    )
    for split in SPLITS
  }
  for split, found in of_split.items():
    if not found:
      raise ValueError(
        f'{path} must have pairs for both splits, got no {split} pair among '
        f'{len(pairs):,}, in {len(groups):,} groups that share no prompt; '
        'write more pairs with prompts of their own'
        f'{f", or give some the split {split}" if len(groups) > 1 else ""}.'
      )
  first = of_split['train'][0][0]
  return Task(
    name,
    _description(path.name, first),
    tuple(sorted({row.pair.condition for row in pairs})),
    listed=Listed(
      **of_split,
      hash=_hash(of_split),
      file=path.name,
      left_out=dict(left_out),
    ),
  )


def _name(path: pathlib.Path) -> str:
  if not (_NAME.fullmatch(path.stem) and _ENDING.fullmatch(path.suffix)):
    raise ValueError(
      'the name of a file of pairs must be letters, digits, _, - and . (at '
      f'most 64) before its ending, got {path.name!r}; rename it.'
    )
  return path.stem


def _rows(path: pathlib.Path) -> list[_Row]:
  """All pairs of a file; raises ValueError if a line holds none."""
  rows, wrong = [], []
  content = regular.read_bytes(path, _MOST_BYTES)
  for number, line in enumerate(content.split(b'\n'), start=1):
    if not line.removeprefix(b'\xef\xbb\xbf').strip():
      continue
    try:
      rows.append(_row(json_text.parse(line)))
    except ValueError as error:
      wrong.append((number, error))
  if wrong:
    number, error = wrong[0]
    got, remedy = f'line {number:,} with {error}', 'it'
    if len(wrong) > 1:
      lines = f'{len(wrong):,} of {len(wrong) + len(rows):,} lines without'
      got, remedy = f'{lines}, the first {got}', 'them'
    raise ValueError(
      f'{path} must hold a pair of prompts as JSON in each line, got {got}; '
      f'correct or remove {remedy}.'
    )
  if not rows:
    raise ValueError(
      f'{path} must hold a pair of prompts as JSON in each line, got an empty '
      'file; write e.g. {"prompts": ["The key", "The keys"], "answers": '
      '[" is", " are"]}.'
    )
  return rows


def _row(value: Any) -> _Row:
  """The pair of a line; what is wrong otherwise, to complete 'got'."""
  if not isinstance(value, dict):
    raise ValueError(f'{json_text.kind(value)} instead of an object')
  for field in value:
    if field not in _FIELDS:
      raise ValueError(
        f'the unknown field {_short(field)} beside {", ".join(_FIELDS)}'
      )
  prompts, answers = (_two_texts(value, field) for field in _FIELDS[:2])
  condition, split = (value.get(field) for field in _FIELDS[2:])
  if condition is None:
    condition = NO_CONDITION
  if not (
    isinstance(condition, str)
    and condition.isprintable()
    and 1 <= len(condition.strip()) <= len(condition) <= _LONGEST_CONDITION
  ):
    raise ValueError(
      f'the condition {_short(condition)} instead of 1 to '
      f'{_LONGEST_CONDITION} printable characters'
    )
  if split is not None and split not in SPLITS:
    raise ValueError(f'the split {_short(split)} instead of train or test')
  pair = Pair(prompts[0], answers[0], prompts[1], answers[1], condition)
  return _Row(pair, split)


def _two_texts(value: Mapping[str, Any], field: str) -> list[str]:
  if field not in value:
    raise ValueError(f'no {field}')
  texts = value[field]
  if not isinstance(texts, list):
    raise ValueError(f'{json_text.kind(texts)} as {field} instead of two texts')
  if len(texts) != 2:
    raise ValueError(
      f'a list of {len(texts):,} as {field} instead of two texts'
    )
  for text in texts:
    if not isinstance(text, str):
      raise ValueError(f'{json_text.kind(text)} among {field}')
    if not text:
      raise ValueError(f'an empty text among {field}')
  if texts[0] == texts[1]:
    raise ValueError(f'both {field} {_short(texts[0])}')
  return texts


def _short(value: Any) -> str:
  return textwrap.shorten(repr(value)[:200], 40, placeholder='…')


def _check_conditions(path: pathlib.Path, rows: Sequence[_Row]) -> None:
  conditions = {row.pair.condition for row in rows}
  if len(conditions) > _MOST_CONDITIONS:
    raise ValueError(
      f'{path} must have at most {_MOST_CONDITIONS} conditions, each shared by '
      f'many pairs, got {len(conditions):,}; leave out those of single pairs.'
    )


def _sides(pair: Pair) -> Iterator[tuple[str, str, str]]:
  """(prompt, right answer, wrong answer) of both sides."""
  yield pair.prompt_a, pair.answer_a, pair.answer_b
  yield pair.prompt_b, pair.answer_b, pair.answer_a


def _check_contradictions(path: pathlib.Path, rows: Sequence[_Row]) -> None:
  """Refuses a prompt that calls for an answer here that is wrong there."""
  said = {side for row in rows for side in _sides(row.pair)}
  turned = {(prompt, wrong, right) for prompt, right, wrong in said}
  if both := said & turned:
    prompts = sorted({prompt for prompt, _, _ in both})
    raise ValueError(
      f'{path} must say of each prompt which of two answers is right, got both '
      f'for {len(prompts):,} prompt{"s" * (len(prompts) > 1)}, e.g. '
      f'{_short(prompts[0])}; correct or remove their pairs.'
    )


def _once(rows: Sequence[_Row]) -> tuple[list[_Row], Counter[str]]:
  """Each pair once, in an order that does not depend on that of the lines.

  A pair that is there in both splits stays so, to be refused.
  """
  alike: dict[Any, list[_Row]] = {}
  for row in rows:
    alike.setdefault(frozenset(_sides(row.pair)), []).append(row)
  kept, left_out = [], Counter()
  for same in alike.values():
    pair = min((row.pair for row in same), key=_key)
    given = {row.split for row in same} - {None} or {None}
    kept += [_Row(pair, split) for split in given]
    if more := len(same) - len(given):
      left_out[TWICE] += more
  return sorted(kept, key=lambda row: _key(row.pair)), left_out


def _key(pair: Pair) -> list[str]:
  return [*pair.prompts, *pair.answers, pair.condition]


def _hash(of_split: Mapping[str, Sequence[Sequence[Pair]]]) -> str:
  lines = sorted(
    json.dumps([split, *_key(pair)])
    for split, groups in of_split.items()
    for group in groups
    for pair in group
  )
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def _description(file: str, pair: Pair) -> str:
  """What is decided, by way of example: nobody has said it."""
  a, b = (
    f'{_end(prompt)} -> {json.dumps(answer[:30], ensure_ascii=False)}'
    for prompt, answer in zip(pair.prompts, pair.answers, strict=True)
  )
  return f'Pairs of {file}, e.g. {a} against {b}.'


def _end(prompt: str) -> str:
  short = prompt if len(prompt) <= 60 else f'…{prompt[-59:]}'
  return json.dumps(short, ensure_ascii=False)
