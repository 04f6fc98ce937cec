"""Inputs of programs that were compiled into transformers.

Such a program reads a BOS token and then 1 to max_length tokens. Its inputs
are often so few that all of them can be listed.
"""

import itertools
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

BOS = 'compiler_bos'
PAD = 'compiler_pad'
SPLITS = ('all', 'train', 'test')

# Up to this many inputs are listed, and drawn without replacement.
_LISTED = 2**16
# One in so many sequences, by hash, belongs to the test split.
_TEST_EVERY = 4


class Sequences(NamedTuple):
  """Token sequences as a model reads them.

  Attributes:
    tokens: int32 (n, max_length + 1) ids, BOS first, padded on the right.
    lengths: int32 (n,) numbers of tokens, BOS included.
  """

  tokens: np.ndarray
  lengths: np.ndarray


def in_test_split(sequence: Iterable[int]) -> bool:
  """Whether a sequence of ids, without BOS, is a test input: a fixed hash."""
  text = ','.join(str(int(i)) for i in sequence)
  return zlib.crc32(text.encode()) % _TEST_EVERY == 0


def draw_inputs(
  vocab: Sequence[object],
  max_length: int,
  count: int,
  seed: int,
  lengths: Iterable[int] | None = None,
  unique: bool = False,
  split: str = 'all',
) -> Sequences:
  """Random inputs, every length as likely as any other.

  Where there are at most 65,536 inputs, they are drawn without replacement,
  and all of the split are returned, in order, if `count` asks for as many or
  more. Where there are more, draws are independent.

  Args:
    vocab: token of every id; BOS and, if there is one, PAD among them.
    max_length: longest sequence without BOS.
    count: how many inputs.
    seed: of the draw.
    lengths: lengths without BOS to draw; None for 1 to max_length.
    unique: no token twice in a sequence, which bounds its length, too.
    split: 'train' or 'test', which share no sequence: a quarter of all
      sequences, by hash, are test inputs. 'all' is both. Splits never overlap,
      so that those of a small input space are small.

  Raises:
    ValueError: if there is no BOS, a length is out of range, the split is
      unknown, or it has no sequence.
  """
  if BOS not in vocab:
    raise ValueError(
      f'vocab must hold the token {BOS!r}, got {tuple(vocab)!r}; add it.'
    )
  if split not in SPLITS:
    raise ValueError(
      f'split must be one of {", ".join(SPLITS)}, got {split!r}; choose one '
      'of these.'
    )
  ids = [i for i, token in enumerate(vocab) if token not in (BOS, PAD)]
  longest = min(max_length, len(ids)) if unique else max_length
  lengths = sorted(set(range(1, longest + 1) if lengths is None else lengths))
  for length in lengths or [0]:
    if not 1 <= length <= longest:
      raise ValueError(
        f'lengths must be in [1, {longest}], got {length}; choose others.'
      )

  def wanted(sequence):
    return split == 'all' or in_test_split(sequence) == (split == 'test')

  rng = np.random.default_rng(seed)
  sizes = [_count(len(ids), length, unique) for length in lengths]
  if sum(sizes) <= _LISTED:
    found = [s for s in _list(ids, lengths, unique) if wanted(s)]
    if not found:
      raise ValueError(
        f'split must hold an input, got none in {split!r} of {sum(sizes)} '
        'inputs; allow more tokens or lengths.'
      )
    if count < len(found):
      by_length = dict(zip(lengths, sizes, strict=True))
      odds = np.array([1 / by_length[len(s)] for s in found])
      chosen = rng.choice(len(found), count, False, odds / odds.sum())
      found = [found[i] for i in chosen]
  else:
    found = []
    while len(found) < count:
      length = int(rng.choice(lengths))
      sequence = tuple(rng.choice(ids, length, replace=not unique).tolist())
      if wanted(sequence):
        found.append(sequence)
  return pad(found, vocab, max_length)


def _count(vocab_size: int, length: int, unique: bool) -> int:
  return math.perm(vocab_size, length) if unique else vocab_size**length


def _list(
  ids: Sequence[int], lengths: Sequence[int], unique: bool
) -> Iterator[tuple[int, ...]]:
  for length in lengths:
    if unique:
      yield from itertools.permutations(ids, length)
    else:
      yield from itertools.product(ids, repeat=length)


def pad(
  sequences: Sequence[Sequence[int]], vocab: Sequence[object], max_length: int
) -> Sequences:
  """Puts BOS before sequences of ids and PAD (or BOS) behind them.

  Raises:
    ValueError: if a sequence is empty or longer than max_length.
  """
  bos = vocab.index(BOS)
  filler = vocab.index(PAD) if PAD in vocab else bos
  tokens = np.full((len(sequences), max_length + 1), filler, np.int32)
  tokens[:, 0] = bos
  for row, sequence in zip(tokens, sequences, strict=True):
    if not 1 <= len(sequence) <= max_length:
      raise ValueError(
        f'sequences must have 1 to {max_length} tokens, got {len(sequence)}; '
        'shorten or leave out this one.'
      )
    row[1 : len(sequence) + 1] = sequence
  lengths = np.array([len(s) + 1 for s in sequences], np.int32)
  return Sequences(tokens, lengths)
