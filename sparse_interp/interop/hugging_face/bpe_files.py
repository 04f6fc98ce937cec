"""Byte-level BPE in the files of GPT-2 and of tiktoken.

GPT-2 keeps two files, and so does the release of `tinypython_2k`:
`encoder.json`, {entry: id}, and `vocab.bpe`, a line for the version and then
one merge on each line, the first ones first. Hugging Face calls them
`vocab.json` and `merges.txt`. Entries are bytes written as letters (see
`tokenizer.byte_letters`). tiktoken keeps one file: a line for each entry, its
bytes in base 64 and its id, without special tokens.

No file says by which pattern text is cut before anything is merged; the model
that they belong to does (see `own_tokenizer`).
"""

import base64
import collections
import contextlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.data.cutting import GPT2_PATTERN as GPT2_PATTERN
from sparse_interp.data.cutting import SPLIT_PATTERN
from sparse_interp.data.tokenizer import END_OF_TEXT, Tokenizer
from sparse_interp.files import regular, whole_file
from sparse_interp.interop.hugging_face.hf_config import (
  read_json,
  refusal,
  short,
)

NAMES = (('encoder.json', 'vocab.bpe'), ('vocab.json', 'merges.txt'))
_TIKTOKEN = 'tokenizer.tiktoken'
_VERSION = '#version: 0.2'
_SPECIAL = re.compile(r'<[!-;=?-~]+>|\[[A-Z]+\]')
_MAX_BYTES = 16 * 2**20
_AGAIN = 'copy the files again'


def load(
  directory: str | os.PathLike, pattern: str = SPLIT_PATTERN
) -> Tokenizer:
  """Reads encoder.json and vocab.bpe, or vocab.json and merges.txt.

  Entries that are neither a byte nor made by a merge must be special tokens
  (`<...>`); no text encodes to them. `<|endoftext|>` is added behind all others
  where it is not among them.

  Args:
    directory: that holds them.
    pattern: by which text is cut: that of tinypython_2k, or GPT2_PATTERN.

  Returns:
    The tokenizer; it encodes as GPT-2's own does, by the order of the merges.

  Raises:
    ValueError: if files are missing or damaged, a byte has no entry, or
      entries, ids and merges do not belong together.
  """
  directory = pathlib.Path(directory)
  present = [names for names in NAMES if (directory / names[0]).exists()]
  if not present:
    wanted = ' or '.join(' and '.join(names) for names in NAMES)
    raise refusal(directory, f'hold {wanted}', 'neither', _AGAIN)
  return read(directory, present[0], pattern)


def read(
  directory: pathlib.Path,
  names: tuple[str, str],
  pattern: str,
  nfc: bool = False,
  special: Mapping[str, int] | None = None,
) -> Tokenizer:
  """Reads one pair of files.

  Args:
    directory: that holds them.
    names: of the entries and the merges.
    pattern: by which text is cut.
    nfc: whether text must be in this normal form.
    special: {token: id} that are special, however they are spelled, and may
      lack in the file.

  Raises:
    ValueError: as `load`.
  """
  ids, merges = read_pair(directory, names)
  for token, i in (special or {}).items():
    if ids.setdefault(token, i) != i:
      found = f'{short(token)} with ids {ids[token]} and {i}'
      raise refusal(directory, 'have one id for each entry', found, _AGAIN)
  _check_ids(directory / names[0], ids)
  apart = _check(directory, ids, merges, special or {})
  if pattern == SPLIT_PATTERN and (odd := _out_of_order(ids, merges)):
    # Its own tokenizer is tiktoken, which merges by ids.
    raise refusal(directory, 'have ids in the order of the merges', odd, _AGAIN)
  if END_OF_TEXT not in ids:
    apart.append(END_OF_TEXT)
  last = len(ids)
  for token in reversed(apart):
    if ids.get(token, last) < last - 1:
      break  # the ones behind all others are no part of the model itself
    last = ids.pop(token, last)
  return tokenizer_lib.from_merges(ids, merges, apart, pattern, nfc)


def is_special(token: str) -> bool:
  """Whether a token is spelled as special ones are."""
  return _SPECIAL.fullmatch(token) is not None


def read_pair(
  directory: pathlib.Path, names: tuple[str, str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
  """Reads entries with their ids, and merges, which may not fit together.

  Raises:
    ValueError: if a file is missing or damaged.
  """
  path = directory / names[0]
  ids = read_json(path)
  for entry, i in ids.items():
    if type(i) is not int:
      found = f'{short(i)} for {short(entry)}'
      raise refusal(path, 'have whole numbers as ids', found, _AGAIN)
  return ids, _read_merges(directory / names[1])


def export(tokenizer: Tokenizer, directory: str | os.PathLike) -> None:
  """Writes encoder.json, vocab.bpe and tokenizer.tiktoken.

  tiktoken takes the rest from the tokenizer:

      tiktoken.Encoding(
        'ours',
        pat_str=tokenizer.pattern,
        mergeable_ranks=tiktoken.load.load_tiktoken_bpe(path),
        special_tokens=tokenizer.special_tokens,
      )

  Its reader of the first two files refuses reserved entries; where a tokenizer
  has any, use the third.

  Args:
    tokenizer: trained here, or read from such files.
    directory: is made if it is not there; older files are replaced.

  Raises:
    ValueError: if these files cannot say all that the tokenizer does.
  """
  directory = pathlib.Path(directory)
  letters, ids = tokenizer_lib.byte_letters(), tokenizer.vocabulary()
  _check_said(tokenizer)
  merges = [' '.join(pair) for pair in tokenizer.merges()]
  ranks = [
    f'{base64.b64encode(bytes(letters[c] for c in entry)).decode()} {i}'
    for entry, i in ids.items()
    if entry not in tokenizer.special_tokens
  ]
  contents = {
    'encoder.json': json.dumps(ids),
    'vocab.bpe': '\n'.join([_VERSION, *merges, '']),
    _TIKTOKEN: '\n'.join([*ranks, '']),
  }
  with contextlib.ExitStack() as stack:
    for name, content in contents.items():
      part = stack.enter_context(whole_file.writing(directory / name))
      part.write_bytes(content.encode())


def _check_said(tokenizer: Tokenizer) -> None:
  added = tokenizer.added_tokens().items()
  found = [
    f'added token {short(t)}' for t, flags in added if not flags['special']
  ]
  if tokenizer.pattern is None or not tokenizer.can_encode('e\u0301'):
    found.append(tokenizer.rule)
  odd = _out_of_order(tokenizer.vocabulary(), tokenizer.merges())
  if odd:
    found.append(odd)
  if found:
    raise ValueError(
      'tokenizer must cut by one pattern alone and have ids in the order of '
      f'its merges to be written for tiktoken, got {found[0]}; keep its '
      'tokenizer.json.'
    )


def _check_ids(path: pathlib.Path, ids: Mapping[str, int]) -> None:
  seen = set()
  for entry, i in ids.items():
    if not 0 <= i < len(ids) or i in seen:
      raise refusal(
        path,
        f'have the ids from 0 to {len(ids) - 1}, each once',
        f'{short(i)} for {short(entry)}',
        _AGAIN,
      )
    seen.add(i)


def _read_merges(path: pathlib.Path) -> list[tuple[str, str]]:
  if path.exists() and not path.is_file():  # a pipe would keep us waiting
    raise refusal(path, 'be a file', 'something else', _AGAIN)
  try:
    size = regular.check(path)
    content = path.read_bytes() if size <= _MAX_BYTES else b''
    lines = content.decode('utf-8-sig').replace('\r\n', '\n').split('\n')
  except OSError as error:
    found = error.strerror or str(error)
    raise refusal(path, 'be readable', found, _AGAIN) from None
  except UnicodeDecodeError as error:
    raise refusal(path, 'be UTF-8', str(error), _AGAIN) from None
  if size > _MAX_BYTES:
    raise refusal(path, 'have at most 16 MiB', f'{size} bytes', _AGAIN)
  if not lines[-1]:
    lines.pop()
  # Some writers leave the first line out.
  first = int(bool(lines) and lines[0].startswith('#version'))
  merges = []
  for number, line in enumerate(lines[first:], first):
    pair = line.split(' ')
    if len(pair) != 2 or not all(pair):
      raise refusal(
        path,
        'have two entries and one space on each line',
        f'{short(lines[number])} on line {number + 1}',
        _AGAIN,
      )
    merges.append((pair[0], pair[1]))
  return merges


def _check(
  directory: pathlib.Path,
  ids: Mapping[str, int],
  merges: list[tuple[str, str]],
  special: Mapping[str, int],
) -> list[str]:
  """The special tokens, by id, of files that belong together."""

  def wrong(constraint: str, found: Any) -> ValueError:
    return refusal(directory, constraint, found, _AGAIN)

  letters = tokenizer_lib.byte_letters()
  for letter, byte in letters.items():
    if letter not in ids:
      raise wrong('have an entry for every byte', f'none for byte {byte}')
  known = set(letters)
  for pair in merges:
    for part in pair:
      if part not in known:
        raise wrong('merge what is there', f'{short(part)}, made by no merge')
    entry = ''.join(pair)
    if entry not in ids:
      raise wrong('have an id for each merge', f'{short(entry)} without an id')
    known.add(entry)
  twice = [pair for pair, n in collections.Counter(merges).items() if n > 1]
  if twice:
    raise wrong('have each merge once', f'{short(" ".join(twice[0]))} twice')
  for token in [*special, END_OF_TEXT]:
    if token in known:
      raise wrong('have no merge make a special token', short(token))
  apart = sorted(set(ids) - known, key=ids.__getitem__)
  for token in apart:
    if token not in special and not is_special(token):
      raise wrong('make every entry by a merge', f'{short(token)}, by none')
  return apart


def _out_of_order(
  ids: Mapping[str, int], merges: list[tuple[str, str]]
) -> str | None:
  """The first entry that ids put before an older one; None if there is none."""
  last = max(ids[letter] for letter in tokenizer_lib.byte_letters())
  for entry in map(''.join, merges):
    if ids[entry] <= last:
      return f'{short(entry)} with id {ids[entry]} after {last}'
    last = ids[entry]
  return None
