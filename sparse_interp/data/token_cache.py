"""Tokens on disk: one memory-mapped file per corpus and split.

`<split>-<corpus>-<tokenizer>.npy` holds the stream; the names are the first
digits of the hashes of the documents and of the tokenizer, so a change of
either is another file. A `.json` of the same name is written last and states
the length and checksum that the stream must have to be used again.

The stream is each document's tokens after one `<|endoftext|>`: a document
starts after the token, and the end of one is seen as the start of the next.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt

from sparse_interp.data import corpora
from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.files import regular, whole_file

_DIGITS = 16  # of each hash, in file names
_BATCH_BYTES = 1 << 20  # text that is encoded at once
_CHECK_BYTES = 1 << 24  # of the stream that are read at once


def build(
  directory: str | os.PathLike[str],
  documents: Sequence[str],
  tokenizer: tokenizer_lib.Tokenizer,
  split: str = 'train',
  progress: Callable[[int, int], None] | None = None,
) -> UInt[np.ndarray, 'tokens']:
  """Returns the token stream of the documents, from the cache where possible.

  A cached stream that is truncated or altered in any way is made again.

  Args:
    directory: The cache, made if missing.
    documents: The documents of one corpus and split, in the order wanted.
    tokenizer: Encodes them.
    split: Name of the split, for people who look at the files.
    progress: Called as progress(documents done, documents in all) while
      tokens are computed; not called when the cache has them.

  Returns:
    The stream as a read-only memory map: uint16 where the vocabulary allows,
    else uint32.

  Raises:
    OSError: If the file cannot be written; nothing is left behind.
  """
  corpus = corpora.corpus_hash(documents)
  name = f'{split}-{corpus[:_DIGITS]}-{tokenizer.hash[:_DIGITS]}'
  path = pathlib.Path(directory) / f'{name}.npy'
  label = path.with_suffix('.json')
  identity = {
    'corpus_hash': corpus,
    'tokenizer_hash': tokenizer.hash,
    'documents': len(documents),
  }
  tokens = _load(path, label, identity)
  if tokens is None:
    parts = list(_encode(documents, tokenizer, progress))
    tokens = np.concatenate(parts) if parts else np.zeros(0, _dtype(tokenizer))
    _write(path, lambda file: np.save(file, tokens))
    identity |= {'tokens': len(tokens), 'crc32': _checksum(tokens)}
    text = json.dumps(identity, indent=2)
    _write(label, lambda file: file.write(text.encode()))
    tokens = np.load(path, mmap_mode='r')
  return tokens


def _dtype(tokenizer: tokenizer_lib.Tokenizer) -> np.dtype:
  return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def _encode(
  documents: Sequence[str],
  tokenizer: tokenizer_lib.Tokenizer,
  progress: Callable[[int, int], None] | None,
) -> Iterator[UInt[np.ndarray, '_']]:
  """Yields the stream in pieces, some documents at a time."""
  start = 0
  while start < len(documents):
    stop, size = start, 0
    while stop < len(documents) and size < _BATCH_BYTES:
      size += len(documents[stop])
      stop += 1
    ids = []
    for encoded in tokenizer.encode_batch(documents[start:stop]):
      ids.append(tokenizer.eot)
      ids.extend(encoded)
    yield np.array(ids, _dtype(tokenizer))
    start = stop
    if progress is not None:
      progress(start, len(documents))


def _load(
  path: pathlib.Path, label: pathlib.Path, identity: dict[str, str | int]
) -> np.ndarray | None:
  """The cached stream, or None unless it is provably the one asked for."""
  try:
    found = json.loads(regular.read_bytes(label))
    tokens = np.load(path, mmap_mode='r')
  except (OSError, EOFError, ValueError):  # missing, truncated, not the format
    return None
  if tokens.dtype.kind != 'u' or tokens.ndim != 1:
    return None
  expected = identity | {'tokens': len(tokens), 'crc32': _checksum(tokens)}
  return tokens if found == expected else None


def _checksum(tokens: UInt[np.ndarray, 'tokens']) -> int:
  step = _CHECK_BYTES // tokens.itemsize
  crc = 0
  for start in range(0, len(tokens), step):
    crc = zlib.crc32(tokens[start : start + step].data, crc)
  return crc


def _write(path: pathlib.Path, write: Callable[..., object]) -> None:
  """Has `write` fill a file that then takes the place of `path` at once."""
  with whole_file.writing(path) as part, part.open('wb') as file:
    write(file)
