"""From the names of corpora to token streams, through files in the workdir."""

import dataclasses
import hashlib
import pathlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sparse_interp.data import corpora, token_cache
from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.files import model_files

# Text per corpus that the tokenizer learns from: documents come in random
# order, so the first ones are a sample, and more changes few merges.
_TOKENIZER_BYTES = 8_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
  """Tokenized text of a run.

  Attributes:
    tokenizer: trained on the training documents, or read from the workdir.
    names: of the corpora.
    weights: their shares of the training tokens.
    train: one stream of tokens per corpus.
    validation: the same for documents that are never trained on.
    corpus_hash: hash of all documents, in order.
    left_out: {corpus: {reason: documents of it that are not used}}.
  """

  tokenizer: tokenizer_lib.Tokenizer
  names: tuple[str, ...]
  weights: tuple[float, ...]
  train: tuple[Any, ...]
  validation: tuple[Any, ...]
  corpus_hash: str
  left_out: dict[str, dict[str, int]]


def prepare(
  workdir: str | pathlib.Path,
  sources: Sequence[tuple[str, float]],
  seed: int,
  max_bytes: int | None,
  vocab_size: int,
  validation_fraction: float,
  say: Callable[[str], None],
) -> Text:
  """Reads corpora, trains the tokenizer once, tokenizes into the cache.

  Args:
    workdir: receives tokenizer.json and data/.
    sources: (spec, weight) pairs; see `corpora.read_corpus`.
    seed: of the order of documents.
    max_bytes: limit per corpus; None for no limit.
    vocab_size: of the tokenizer.
    validation_fraction: share of documents kept from training.
    say: receives progress lines.

  Raises:
    ValueError: from `corpora.read_corpus` and the tokenizer.
  """
  workdir = pathlib.Path(workdir)
  splits, digest, left_out = [], hashlib.sha256(), {}
  for spec, _ in sources:
    say(f'reading corpus {spec}')
    counts = Counter()
    documents = corpora.read_corpus(spec, seed, max_bytes, counts)
    if counts.total():
      say(f'left out of {spec}: {corpora.describe(counts)}')
      left_out[spec] = dict(counts)
    digest.update(corpora.corpus_hash(documents).encode())
    splits.append(corpora.split_documents(documents, validation_fraction))
  path = workdir / model_files.TOKENIZER
  if not model_files.vouches(workdir, model_files.TOKENIZER):
    say(f'training a tokenizer of {vocab_size} entries')
    sample = [text for train, _ in splits for text in _first(train)]
    tokenizer_lib.train_tokenizer(sample, vocab_size).save(path)
  # Read back even when new, so that a restarted run has the same object.
  tokenizer = tokenizer_lib.Tokenizer.load(path)
  streams = []
  for (spec, _), split in zip(sources, splits, strict=True):
    say(f'tokenizing {spec}')
    streams.append(
      [
        token_cache.build(workdir / 'data', documents, tokenizer, name)
        for name, documents in zip(('train', 'validation'), split, strict=True)
      ]
    )
  return Text(
    tokenizer=tokenizer,
    names=tuple(spec for spec, _ in sources),
    weights=tuple(weight for _, weight in sources),
    train=tuple(train for train, _ in streams),
    validation=tuple(validation for _, validation in streams),
    corpus_hash=digest.hexdigest(),
    left_out=left_out,
  )


def _first(documents: Sequence[str]) -> list[str]:
  """The documents that begin within the first _TOKENIZER_BYTES characters."""
  first, size = [], 0
  for document in documents:
    if size >= _TOKENIZER_BYTES:
      break
    first.append(document)
    size += len(document)
  return first
