"""Byte-level BPE with `<|endoftext|>`: tokenizers trained here, and others.

Text is cut by a rule into pieces (see `cutting`; here words with their leading
space, groups of up to three digits, punctuation, runs of white space), each
piece is written in bytes, and frequent pairs are merged within pieces. All 256
bytes are in the vocabulary, so every text that is encoded comes back unchanged.
Where a tokenizer of others has a normal form of text, text in another form is
refused: it would come back in that form.

Ids of tokenizers trained here: bytes and merges first, then reserved entries if
the training text was too small to fill the vocabulary, and `<|endoftext|>`
last. Those of others may have it anywhere. Text never encodes to a special
entry: a document that spells '<|endoftext|>' is encoded letter by letter, so
documents cannot forge their own ends.

Source: Gao et al. 2025 (arXiv 2511.13653) and its released `tinypython_2k`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  trainers,
)

from sparse_interp.data import cutting
from sparse_interp.data.byte_letters import BYTES, byte_letters
from sparse_interp.data.cutting import SPLIT_PATTERN
from sparse_interp.files import regular, whole_file

END_OF_TEXT = '<|endoftext|>'

Ids = Sequence[int | np.integer] | np.ndarray


class Tokenizer:
  """Text to ids and back.

  Attributes:
    vocab_size: Number of ids, including special ones.
    eot: The id of `<|endoftext|>`.
    special_tokens: {entry that no text encodes to: id}, reserved ones and
      `<|endoftext|>`.
    hash: Hex SHA-256 of everything that decides the encoding.
  """

  def __init__(self, backend: tokenizers.Tokenizer):
    """Wraps a backend that has all bytes, and `<|endoftext|>`.

    Raises:
      ValueError: If `<|endoftext|>` is no special token, or ids are missing.
    """
    backend.encode_special_tokens = True  # see the module's docstring
    self._backend = backend
    self.vocab_size = backend.get_vocab_size()
    self.hash = hashlib.sha256(backend.to_str().encode()).hexdigest()
    added = backend.get_added_tokens_decoder()
    special = {added[i].content: i for i in sorted(added) if added[i].special}
    if END_OF_TEXT not in special:
      raise ValueError(
        f'tokenizer must have {END_OF_TEXT} as a special token, got '
        f'{", ".join(map(repr, special))[:60] or "none"}; train it with '
        'train_tokenizer.'
      )
    self.special_tokens, self.eot = special, special[END_OF_TEXT]
    letters = byte_letters()
    self._bytes = []
    for i in range(self.vocab_size):
      entry = added[i].content if i in added else backend.id_to_token(i)
      if entry is None:
        raise ValueError(
          f'tokenizer must have all ids from 0 to {self.vocab_size - 1}, got '
          f'none for {i}; train it with train_tokenizer.'
        )
      plain = i in added or not letters.keys() >= set(entry)
      self._bytes.append(
        entry.encode() if plain else bytes(letters[c] for c in entry)
      )

  def encode(self, text: str) -> list[int]:
    """Ids of the text, without any `<|endoftext|>`.

    Raises:
      ValueError: If the text is not in the tokenizer's normal form, NFC; those
        that are trained here have none.
    """
    self._check_form(text)
    return self._backend.encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, computed on all cores.

    Raises:
      ValueError: As `encode`.
    """
    for text in texts:
      self._check_form(text)
    encodings = self._backend.encode_batch_fast(
      list(texts), add_special_tokens=False
    )
    return [encoding.ids for encoding in encodings]

  def can_encode(self, text: str) -> bool:
    """Whether the text is in the normal form of the tokenizer, if it has one.

    Text that is not would come back changed.
    """
    form = self._backend.normalizer
    return form is None or form.normalize_str(text) == text

  def decode(self, ids: Ids) -> str:
    """Text of the ids; bytes that are not UTF-8 become U+FFFD."""
    parts = [self._bytes[i] for i in self._checked(ids)]
    return b''.join(parts).decode(errors='replace')

  def pieces(self, ids: Ids) -> list[str]:
    r"""The text of each id on its own, to be shown to a person.

    White space stays as it is ('\n' is one character). Bytes that are only a
    part of a character are written as escapes: '\\xe2' is four characters.
    """
    return [
      self._bytes[i].decode(errors='backslashreplace')
      for i in self._checked(ids)
    ]

  def merges(self) -> list[tuple[str, str]]:
    """Pairs that are merged, the first ones first, in `byte_letters`."""
    model = json.loads(self._backend.to_str())['model']
    return [(first, second) for first, second in model['merges']]

  def vocabulary(self) -> dict[str, int]:
    """{entry in `byte_letters`, or special token: id}, by id."""
    ids = self._backend.get_vocab(with_added_tokens=True)
    return dict(sorted(ids.items(), key=lambda item: item[1]))

  def added_tokens(self) -> dict[str, dict[str, bool]]:
    """{added token: its settings}, special or read from texts."""
    names = ('special', 'lstrip', 'rstrip', 'single_word', 'normalized')
    return {
      token.content: {name: getattr(token, name) for name in names}
      for token in self._backend.get_added_tokens_decoder().values()
    }

  @property
  def pattern(self) -> str | None:
    """The regular expression that cuts text; None if no single one does."""
    return cutting.pattern_of(self._rule())

  @property
  def rule(self) -> str:
    """In words, how text is cut, and what else decides about the ids."""
    parts = [f'text is cut {cutting.describe(self._rule())}']
    added = self.added_tokens().values()
    if plain := sum(not token['special'] for token in added):
      parts.insert(0, f'{plain} added tokens are taken out of it first')
    if self._backend.normalizer is not None:
      parts.insert(0, 'text must be in the form NFC')
    return '; '.join([*parts, 'special tokens are never read from it'])

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes a `tokenizers` JSON file, whole or not at all."""
    with whole_file.writing(path) as part:
      part.write_text(self._backend.to_str(), encoding='utf-8')

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> 'Tokenizer':
    """Reads a file that `save` wrote.

    Raises:
      ValueError: If the file is missing, damaged or not such a tokenizer.
    """
    if not os.path.exists(path):
      raise ValueError(
        f'tokenizer file must be there, got no {path}; put it back, or run '
        'again what made the model, which makes it anew of the same text.'
      )
    try:
      text = regular.read_bytes(path).decode()
      return cls(tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # the backend raises bare Exceptions
      reason = ' '.join(str(error).split())
      raise ValueError(
        f'tokenizer file must be one that was saved here, got {path}: '
        f'{reason}; put back the one that was, or delete it and run again '
        'what made the model.'
      ) from error

  def _rule(self) -> dict[str, Any]:
    return json.loads(self._backend.to_str())['pre_tokenizer']

  def _check_form(self, text: str) -> None:
    if not self.can_encode(text):
      at = _first_change(text, self._backend.normalizer.normalize_str(text))
      raise ValueError(
        'text must be in the normal form NFC, to which the normalizer of this '
        f'tokenizer would change it, got {text[at : at + 20]!r} at character '
        f"{at}; pass unicodedata.normalize('NFC', text)."
      )

  def _checked(self, ids: Ids) -> list[int]:
    ids = [int(i) for i in ids]
    for i in ids:
      if not 0 <= i < self.vocab_size:
        raise ValueError(
          f'ids must be in [0, {self.vocab_size}), got {i}; '
          'use the tokenizer that made them.'
        )
    return ids


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
  """Learns a byte-level BPE; the same texts give the same tokenizer.

  Only pairs seen at least twice are merged. Where the texts have too few of
  them, reserved entries that no text encodes to fill the vocabulary, so that
  the shapes of a model do not depend on its data.

  Args:
    texts: Training texts; a few MB are enough for a few thousand entries.
    vocab_size: Number of ids, at least 257: the bytes and `<|endoftext|>`.

  Returns:
    A tokenizer with exactly vocab_size ids.
  """
  if vocab_size <= BYTES:
    raise ValueError(
      f'data.vocab_size must be at least {BYTES + 1} (256 bytes and '
      f'{END_OF_TEXT}), got {vocab_size}; choose e.g. 2048.'
    )
  backend = _backend(models.BPE(), SPLIT_PATTERN)
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size - 1,
    min_frequency=2,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer)
  missing = vocab_size - 1 - backend.get_vocab_size()
  reserved = [f'<|reserved_{i}|>' for i in range(missing)]
  backend.add_special_tokens([*reserved, END_OF_TEXT])
  return Tokenizer(backend)


def from_merges(
  vocabulary: Mapping[str, int],
  merges: Sequence[tuple[str, str]],
  special_tokens: Sequence[str],
  pattern: str = SPLIT_PATTERN,
  nfc: bool = False,
) -> Tokenizer:
  """The tokenizer of these merges.

  Args:
    vocabulary: {entry: id} of bytes and what merges make, in `byte_letters`,
      and of special tokens among them; ids from 0 on, each once.
    merges: pairs of entries, the first ones first.
    special_tokens: `<|endoftext|>` among them; those that the vocabulary lacks
      have the ids behind it, in order.
    pattern: that cuts text into pieces.
    nfc: whether text must be in this normal form.
  """
  model = models.BPE(dict(vocabulary), list(merges))
  backend = _backend(model, pattern)
  if nfc:
    backend.normalizer = normalizers.NFC()
  backend.add_special_tokens(list(special_tokens))
  return Tokenizer(backend)


def _backend(model: models.BPE, pattern: str) -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = cutting.by_pattern(pattern)
  backend.decoder = decoders.ByteLevel()
  return backend


def _first_change(text: str, other: str) -> int:
  pairs = zip(text, other, strict=False)
  most = min(len(text), len(other))
  return next((i for i, (a, b) in enumerate(pairs) if a != b), most)
