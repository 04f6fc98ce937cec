"""Tokenizer and text of an imported model: what its training would have had."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from sparse_interp.data import corpora
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.interop import own_tokenizer
from sparse_interp.interop.own_tokenizer import OwnTokenizer
from sparse_interp.models import GPTConfig
from sparse_interp.training import metrics

# The name of no tokenizer.
NO_TOKENIZER = 'none'
_PHASE = 'import'
_SAMPLE_TOKENS = 65_536
_TEXT_BYTES = 4_000_000  # more than hold that many tokens
_CORPORA = ('stdlib', 'idioms', 'files:', 'jsonl:', 'parquet:')


def check_tokenizer(named: str) -> None:
  """Checks that a tokenizer that is named is there; says what may be named."""
  if named != NO_TOKENIZER and not pathlib.Path(named).exists():
    raise _no_tokenizer(named)


def _no_tokenizer(named):
  return ValueError(
    'tokenizer must be a directory with tokenizer.json, with vocab.json and '
    'merges.txt, or with encoder.json and vocab.bpe, or such a file, got '
    f'{named}; correct the path.'
  )


def find_tokenizer(
  named: str | None, directory: pathlib.Path, model: GPTConfig, kind: str
) -> OwnTokenizer | None:
  """The tokenizer that is named, or the one beside the model, or None.

  Args:
    named: directory with `own_tokenizer.FILES` on this machine, or one of them;
      'none': there is to be none.
    directory: of the model.
    model: what it is for.
    kind: of the model, as `source.load` calls it.

  Raises:
    ValueError: there are files, but they cannot be read or would not encode
      text as the model's own tokenizer, or have more entries than the model.
  """
  own = None
  if named != NO_TOKENIZER:
    own = own_tokenizer.find(named or directory, directory, kind)
  if own is None and named not in (None, NO_TOKENIZER):
    raise _no_tokenizer(named)
  if own is None:
    metrics.say(
      _PHASE,
      'no tokenizer: the model can be loaded, but prune needs one; give '
      '--config.tokenizer and another workdir',
    )
    return None
  tokenizer = own.tokenizer
  if tokenizer.vocab_size > model.vocab_size:
    raise ValueError(
      f'tokenizer must have at most the {model.vocab_size} entries of the '
      f'model, got {tokenizer.vocab_size} in {", ".join(own.files)}; give the '
      f'one of this model, or --config.tokenizer={NO_TOKENIZER}.'
    )
  metrics.say(_PHASE, f'tokenizer: {describe(own, model)["rule"]}')
  return own


def describe(own: OwnTokenizer, model: GPTConfig) -> dict[str, Any]:
  """What the summary says of a tokenizer."""
  tokenizer = own.tokenizer
  files = ' and '.join(own.files)
  spare = model.vocab_size - tokenizer.vocab_size
  said = f'{spare} rows of the model have no entry; ' if spare else ''
  return {
    'files': list(own.files),
    'entries': tokenizer.vocab_size,
    'rows_without_entry': spare,
    'end_of_text': tokenizer.eot,
    'pattern': tokenizer.pattern,
    'rule': f'{tokenizer.vocab_size} entries of {files}; {said}'
    f'{tokenizer.rule} ({own.why})',
  }


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
    Documents that the tokenizer would change are left out.

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
  stream, skipped = [], 0
  for document in documents:
    if not tokenizer.can_encode(document):
      skipped += 1
      continue
    stream += [tokenizer.eot, *tokenizer.encode(document)]
    if len(stream) >= _SAMPLE_TOKENS:
      break
  if skipped:
    metrics.say(_PHASE, f'{skipped} documents skipped, which are not NFC')
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
