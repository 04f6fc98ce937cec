"""Byte-level BPE in the files of GPT-2 and of tiktoken.

GPT-2 keeps two files, and so does the release of `tinypython_2k`:
`encoder.json`, {entry: id}, and `vocab.bpe`, a line for the version and then
one merge on each line, the first ones first. Hugging Face calls them
`vocab.json` and `merges.txt`. Entries are bytes written as letters (see
`tokenizer.byte_letters`). tiktoken keeps one file: a line for each entry, its
bytes in base 64 and its id, without special tokens.

No file says by which pattern text is cut before anything is merged.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
from typing import Any

from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.data.tokenizer import END_OF_TEXT, SPLIT_PATTERN, Tokenizer
from sparse_interp.files import regular, whole_file
from sparse_interp.interop.hf_config import read_json, refusal, short

# How GPT-2 cuts text; `SPLIT_PATTERN` is that of tinypython_2k.
GPT2_PATTERN = (
  r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_NAMES = (('encoder.json', 'vocab.bpe'), ('vocab.json', 'merges.txt'))
_TIKTOKEN = 'tokenizer.tiktoken'
_VERSION = '#version: 0.2'
_SPECIAL = re.compile(r'<\|[!-~]+\|>')
_MAX_BYTES = 16 * 2**20
_AGAIN = 'copy the files again'


def load(
  directory: str | os.PathLike, pattern: str = SPLIT_PATTERN
) -> Tokenizer:
  """Reads encoder.json and vocab.bpe, or vocab.json and merges.txt.

  Entries that are neither a byte nor made by a merge must be special tokens
  (`<|...|>`) with the last ids; no text encodes to them. `<|endoftext|>` is
  the last of them, and is added where it is not among them.

  Args:
    directory: that holds them.
    pattern: by which text is cut: that of tinypython_2k, or GPT2_PATTERN.

  Returns:
    The tokenizer; it encodes as tiktoken does with ids as ranks.

  Raises:
    ValueError: if files are missing or damaged, a byte has no entry, or
      entries, ids and merges do not belong together.
  """
  directory = pathlib.Path(directory)
  present = [names for names in _NAMES if (directory / names[0]).exists()]
  if not present:
    wanted = ' or '.join(' and '.join(names) for names in _NAMES)
    raise refusal(directory, f'hold {wanted}', 'neither', _AGAIN)
  ids = _read_ids(directory / present[0][0])
  merges = _read_merges(directory / present[0][1])
  special = _check(directory, ids, merges)
  for token in special:
    del ids[token]
  if END_OF_TEXT not in special:
    special.append(END_OF_TEXT)
  return tokenizer_lib.from_merges(ids, merges, special, pattern)


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
    tokenizer: one of ours.
    directory: is made if it is not there; older files are replaced.
  """
  directory = pathlib.Path(directory)
  letters, ids = tokenizer_lib.byte_letters(), tokenizer.vocabulary()
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


def _read_ids(path: pathlib.Path) -> dict[str, int]:
  ids = read_json(path)
  seen = set()
  for entry, i in ids.items():
    if type(i) is not int or not 0 <= i < len(ids) or i in seen:
      raise refusal(
        path,
        f'have the ids from 0 to {len(ids) - 1}, each once',
        f'{short(i)} for {short(entry)}',
        _AGAIN,
      )
    seen.add(i)
  return ids


def _read_merges(path: pathlib.Path) -> list[tuple[str, str]]:
  try:
    size = regular.check(path)
    content = path.read_bytes() if size <= _MAX_BYTES else b''
    lines = content.decode('utf-8').replace('\r\n', '\n').split('\n')
  except OSError as error:
    found = error.strerror or str(error)
    raise refusal(path, 'be readable', found, _AGAIN) from None
  except UnicodeDecodeError as error:
    raise refusal(path, 'be UTF-8', str(error), _AGAIN) from None
  if size > _MAX_BYTES:
    raise refusal(path, 'have at most 16 MiB', f'{size} bytes', _AGAIN)
  if not lines[0].startswith('#version'):
    raise refusal(
      path, f'begin with {_VERSION!r}', short(lines[0]), 'add that line'
    )
  if not lines[-1]:
    lines.pop()
  merges = [tuple(line.split(' ')) for line in lines[1:]]
  for number, pair in enumerate(merges, 2):
    if len(pair) != 2 or not all(pair):
      raise refusal(
        path,
        'have two entries and one space on each line',
        f'{short(lines[number - 1])} on line {number}',
        _AGAIN,
      )
  return merges


def _check(
  directory: pathlib.Path,
  ids: dict[str, int],
  merges: list[tuple[str, str]],
) -> list[str]:
  """The special tokens, in order, of files that belong together."""

  def wrong(constraint: str, found: Any) -> ValueError:
    return refusal(directory, constraint, found, _AGAIN)

  letters = tokenizer_lib.byte_letters()
  for letter, byte in letters.items():
    if letter not in ids:
      raise wrong('have an entry for every byte', f'none for byte {byte}')
  known, last = set(letters), -1
  for pair in merges:
    for part in pair:
      if part not in known:
        raise wrong('merge what is there', f'{short(part)}, made by no merge')
    entry = ''.join(pair)
    if entry in known or entry not in ids:
      found = 'twice' if entry in known else 'without an id'
      raise wrong('make each entry once', f'{short(entry)} {found}')
    if ids[entry] < last:
      raise wrong(
        'have ids in the order of the merges',
        f'{short(entry)} with id {ids[entry]} after {last}',
      )
    known.add(entry)
    last = ids[entry]
  special = sorted(set(ids) - known, key=ids.get)
  for place, token in enumerate(special, len(known)):
    if not _SPECIAL.fullmatch(token):
      raise wrong('make every entry by a merge', f'{short(token)}, by none')
    if ids[token] != place:
      raise wrong(
        'have special tokens behind all others',
        f'{short(token)} with id {ids[token]}',
      )
  if END_OF_TEXT in special[:-1]:
    raise wrong(f'have {END_OF_TEXT} as the last id', f'{special[-1]} last')
  return special
