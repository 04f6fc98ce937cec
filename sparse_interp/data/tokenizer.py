"""Byte-level BPE with the published split pattern and `<|endoftext|>`.

Text is cut by a pattern into pieces (words with their leading space, groups of
up to three digits, punctuation, runs of white space), each piece is written in
bytes, and frequent pairs are merged within pieces. All 256 bytes are in the
vocabulary, so every text can be encoded and comes back unchanged.

Ids: bytes and merges first, then reserved entries if the training text was too
small to fill the vocabulary, and `<|endoftext|>` last. Text never encodes to a
reserved entry or to `<|endoftext|>`: a document that spells '<|endoftext|>' is
encoded letter by letter, so documents cannot forge their own ends.

Source: Gao et al. 2025 (arXiv 2511.13653) and its released `tinypython_2k`.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from sparse_interp.files import whole_file

END_OF_TEXT = '<|endoftext|>'
SPLIT_PATTERN = (
  r'[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*'
  r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_BYTES = 256

Ids = Sequence[int | np.integer] | np.ndarray


class Tokenizer:
  """Text to ids and back.

  Attributes:
    vocab_size: Number of ids, including reserved ones and `<|endoftext|>`.
    eot: The id of `<|endoftext|>`, vocab_size - 1.
    special_tokens: {entry that no text encodes to: id}, reserved ones and
      `<|endoftext|>`.
    hash: Hex SHA-256 of everything that decides the encoding.
  """

  def __init__(self, backend: tokenizers.Tokenizer):
    """Wraps a trained backend whose last id is `<|endoftext|>`."""
    backend.encode_special_tokens = True  # see the module's docstring
    self._backend = backend
    self.vocab_size = backend.get_vocab_size()
    self.eot = self.vocab_size - 1
    self.hash = hashlib.sha256(backend.to_str().encode()).hexdigest()
    if backend.token_to_id(END_OF_TEXT) != self.eot:
      raise ValueError(
        f'tokenizer must have {END_OF_TEXT} as its last id {self.eot}, got '
        f'{backend.token_to_id(END_OF_TEXT)}; train it with train_tokenizer.'
      )
    added = backend.get_added_tokens_decoder()
    self.special_tokens = {added[i].content: i for i in sorted(added)}
    letters = byte_letters()
    self._pieces = [
      bytes(letters[letter] for letter in token).decode(
        errors='backslashreplace'
      )
      for token in map(backend.id_to_token, range(self.vocab_size))
    ]

  def encode(self, text: str) -> list[int]:
    """Ids of the text, without any `<|endoftext|>`."""
    return self._backend.encode(text).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, computed on all cores."""
    encodings = self._backend.encode_batch_fast(list(texts))
    return [encoding.ids for encoding in encodings]

  def decode(self, ids: Ids) -> str:
    """Text of the ids; bytes that are not UTF-8 become U+FFFD."""
    return self._backend.decode(self._checked(ids), skip_special_tokens=False)

  def pieces(self, ids: Ids) -> list[str]:
    r"""The text of each id on its own, to be shown to a person.

    White space stays as it is ('\n' is one character). Bytes that are only a
    part of a character are written as escapes: '\\xe2' is four characters.
    """
    return [self._pieces[i] for i in self._checked(ids)]

  def merges(self) -> list[tuple[str, str]]:
    """Pairs that are merged, the first ones first, in `byte_letters`."""
    model = json.loads(self._backend.to_str())['model']
    return [(first, second) for first, second in model['merges']]

  def vocabulary(self) -> dict[str, int]:
    """{entry in `byte_letters`, or special token: id}, by id."""
    ids = self._backend.get_vocab(with_added_tokens=True)
    return dict(sorted(ids.items(), key=lambda item: item[1]))

  @property
  def pattern(self) -> str:
    """The regular expression that cuts text into pieces."""
    stages = json.loads(self._backend.to_str())['pre_tokenizer']
    return stages['pretokenizers'][0]['pattern']['Regex']

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
      text = pathlib.Path(path).read_text(encoding='utf-8')
      return cls(tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # the backend raises bare Exceptions
      reason = ' '.join(str(error).split())
      raise ValueError(
        f'tokenizer file must be one that was saved here, got {path}: '
        f'{reason}; put back the one that was, or delete it and run again '
        'what made the model.'
      ) from error

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
  if vocab_size <= _BYTES:
    raise ValueError(
      f'data.vocab_size must be at least {_BYTES + 1} (256 bytes and '
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
) -> Tokenizer:
  """The tokenizer of these merges.

  Args:
    vocabulary: {entry: id} of bytes and what merges make, in `byte_letters`;
      ids from 0 on, each once.
    merges: pairs of entries, the first ones first.
    special_tokens: behind these ids, in order; `<|endoftext|>` last.
    pattern: that cuts text into pieces.
  """
  model = models.BPE(dict(vocabulary), list(merges))
  backend = _backend(model, pattern)
  backend.add_special_tokens(list(special_tokens))
  return Tokenizer(backend)


def _backend(model: models.BPE, pattern: str) -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  backend.decoder = decoders.ByteLevel()
  return backend


def byte_letters() -> dict[str, int]:
  """The byte that each of the 256 letters of the vocabulary stands for.

  Printable Latin-1 letters stand for themselves; letters from U+0100 on stand
  for the other bytes, in order.
  """
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  plain = [ord(letter) for letter in letters if ord(letter) < _BYTES]
  others = sorted(set(range(_BYTES)) - set(plain))
  return dict(zip(letters, plain + others, strict=True))
