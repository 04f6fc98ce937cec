"""Tokenizer and text of an imported model: what its training would have had."""

import pathlib

import numpy as np
from jaxtyping import Int

from sparse_interp.data import corpora
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.interop import bpe_files
from sparse_interp.models import GPTConfig
from sparse_interp.training import metrics

_PHASE = 'import'
_SAMPLE_TOKENS = 65_536
_TEXT_BYTES = 4_000_000  # more than hold that many tokens
_CORPORA = ('stdlib', 'idioms', 'files:', 'jsonl:', 'parquet:')


def find_tokenizer(
  named: str | None, directory: pathlib.Path, model: GPTConfig
) -> Tokenizer | None:
  """The tokenizer that is named, or the one beside the model, or None.

  Args:
    named: directory with vocab.bpe and encoder.json or with tokenizer.json, or
      such a file.
    directory: of the model.
    model: what it is for.

  Raises:
    ValueError: the one that is named cannot be read, or the one found has more
      entries than the model.
  """
  place = pathlib.Path(named or directory)
  tokenizer = None
  if (place / 'vocab.bpe').is_file():
    tokenizer = bpe_files.load(place)
  elif place.is_file() or (place / 'tokenizer.json').is_file():
    path = place if place.is_file() else place / 'tokenizer.json'
    try:
      tokenizer = Tokenizer.load(path)
    except ValueError:
      if named:
        raise
      metrics.say(_PHASE, f'{path.name} of the source is of another kind')
  elif named:
    raise ValueError(
      'tokenizer must be a directory with vocab.bpe and encoder.json or with '
      f'tokenizer.json, got {place}; correct the path.'
    )
  if tokenizer is None:
    metrics.say(
      _PHASE,
      'no tokenizer: the model can be loaded, but prune needs one; give '
      '--config.tokenizer and another workdir',
    )
  elif tokenizer.vocab_size > model.vocab_size:
    raise ValueError(
      f'tokenizer must have at most the {model.vocab_size} entries of the '
      f'model, got {tokenizer.vocab_size}; give the one of this model.'
    )
  return tokenizer


def check_text(text: str) -> None:
  """Raises ValueError if there is no such text; does not read it."""
  try:
    corpora.check_corpus(_corpus(text), _TEXT_BYTES)
  except ValueError as error:
    # The reader of corpora names the field that pretraining has for them.
    raise ValueError(str(error).replace('data.corpora', 'text')) from error


def cut_windows(
  text: str,
  length: int | None,
  seed: int,
  model: GPTConfig,
  tokenizer: Tokenizer,
) -> tuple[Int[np.ndarray, '_ _'], str]:
  """Text for the means of nodes, as training would cut it.

  Args:
    text: a file, a directory, or a corpus as in `corpora.read_corpus`.
    length: of a window; None: 256, or the model's context if less.
    seed: of the order of documents.
    model: bounds the length.
    tokenizer: of the model.

  Returns:
    Windows of tokens, at most 65,536 tokens in all, and the hash of the text.

  Raises:
    ValueError: there is too little text, or the length is beyond the context.
  """
  length = length or min(256, model.context_length)
  if model.position != 'none' and length > model.context_length:
    raise ValueError(
      'length must be at most the context of the model, '
      f'{model.context_length}, got {length}; choose less.'
    )
  documents = corpora.read_corpus(_corpus(text), seed, _TEXT_BYTES)
  stream = []
  for document in documents:
    stream += [tokenizer.eot, *tokenizer.encode(document)]
    if len(stream) >= _SAMPLE_TOKENS:
      break
  count = min(len(stream), _SAMPLE_TOKENS) // length
  if not count:
    raise ValueError(
      f'text must have at least {length} tokens, got {len(stream)} in {text}; '
      'name more text, or a smaller --config.length.'
    )
  windows = np.array(stream[: count * length], np.int32).reshape(-1, length)
  return windows, corpora.corpus_hash(documents)


def _corpus(text: str) -> str:
  """The spec of a corpus for a path, or for what is one already."""
  if text.startswith(_CORPORA):
    return text
  if text.endswith(('.jsonl', '.jsonl.gz')):
    return f'jsonl:{text}'
  if text.endswith('.parquet'):
    return f'parquet:{text}'
  if pathlib.Path(text).is_dir():
    return f'files:{text.rstrip("/")}/**'
  return f'files:{text}'
