"""Claims about text, tokens and the file that a tokenizer is kept in."""

import json
import os

import hypothesis
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st

from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.data.byte_letters import byte_letters

_PROGRAM = """
def total(values, start=0):
  for value in values:
    start = start + value * 12345
  return start  # <|endoftext|> is text
"""
# Pieces that are likely to be confused with special entries or white space.
_TRICKY = st.lists(
  st.sampled_from(
    ['<|', 'endoftext', '|>', '<|endoftext|>', '<|reserved_0|>', ' ', '\n']
    + ['\r\n', '\t', 'é', '\u0120', '\u200d', '😀', '\0', '1234', "'", '"']
  )
).map(''.join)


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizer_lib.train_tokenizer([_PROGRAM] * 20, 400)


@hypothesis.given(st.text() | _TRICKY)
def test_any_text_comes_back_from_ordinary_ids(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  # Bytes and merges come first; reserved entries and the end of text after.
  assert max(ids, default=0) < tokenizer.vocab_size - 1
  pieces = tokenizer.pieces(ids)
  assert not any('reserved' in piece for piece in pieces)
  assert tokenizer_lib.END_OF_TEXT not in pieces


@hypothesis.given(st.lists(st.text() | _TRICKY))
def test_batches_encode_as_single_texts_do(tokenizer, texts):
  singles = [tokenizer.encode(text) for text in texts]
  assert tokenizer.encode_batch(texts) == singles


def test_tokenizers_of_others_may_have_it_anywhere(tokenizer):
  ids = {tokenizer_lib.END_OF_TEXT: 0}
  ids |= {letter: i for i, letter in enumerate(byte_letters(), 1)}
  other = tokenizer_lib.from_merges(ids, [], ['<|pad|>', *list(ids)[:1]])
  assert (other.eot, other.vocab_size) == (0, 258)
  assert other.special_tokens == {'<|endoftext|>': 0, '<|pad|>': 257}
  text = 'é <|endoftext|> <|pad|>\0'
  assert other.decode([0, *other.encode(text), 0]) == (
    f'<|endoftext|>{text}<|endoftext|>'
  )
  assert other.pieces([257, 0]) == ['<|pad|>', '<|endoftext|>']


def test_text_that_would_come_back_in_another_form_is_refused():
  ids = {letter: i for i, letter in enumerate(byte_letters())}
  other = tokenizer_lib.from_merges(ids, [], ['<|endoftext|>'], nfc=True)
  assert other.decode(other.encode('é')) == 'é'
  assert not other.can_encode('e\u0301')
  for call in (other.encode, lambda text: other.encode_batch([text])):
    with pytest.raises(ValueError, match=r"NFC.*got 'e\u0301x' at character 1"):
      call('ae\u0301x')


def test_end_of_text_is_the_last_id(tokenizer):
  assert tokenizer.eot == tokenizer.vocab_size - 1 == 399
  assert tokenizer.decode([tokenizer.eot]) == '<|endoftext|>'
  assert tokenizer.pieces([tokenizer.eot]) == ['<|endoftext|>']


def test_merges_shorten_text_like_the_training_text(tokenizer):
  ids = tokenizer.encode(_PROGRAM)
  assert len(ids) < len(_PROGRAM) / 2
  assert ' value' in tokenizer.pieces(ids)


def test_published_pattern_bounds_the_tokens():
  text = 'x = 1234567 + yy.zz\n\n    return\n'
  tokenizer = tokenizer_lib.train_tokenizer([text] * 100, 1000)
  assert tokenizer.pieces(tokenizer.encode(text)) == [
    *['x', ' =', ' ', '123', '456', '7', ' +', ' yy', '.zz', '\n\n', '   '],
    *[' return', '\n'],
  ]


def test_training_is_deterministic(tokenizer):
  again = tokenizer_lib.train_tokenizer(iter([_PROGRAM] * 20), 400)
  assert again.hash == tokenizer.hash
  other = tokenizer_lib.train_tokenizer(['another text'] * 20, 400)
  assert other.hash != tokenizer.hash


@pytest.mark.parametrize('vocab_size', [257, 300, 2048])
def test_vocabulary_has_the_size_asked_for(vocab_size):
  tokenizer = tokenizer_lib.train_tokenizer([_PROGRAM] * 2, vocab_size)
  assert tokenizer.vocab_size == vocab_size
  assert len(tokenizer.pieces(range(vocab_size))) == vocab_size
  assert max(tokenizer.encode(_PROGRAM)) < tokenizer.eot


def test_vocabulary_smaller_than_the_bytes_is_refused():
  with pytest.raises(ValueError, match=r'data\.vocab_size .*257.*got 256;'):
    tokenizer_lib.train_tokenizer([_PROGRAM], 256)


def test_pieces_can_be_shown_one_by_one(tokenizer):
  ids = tokenizer.encode(_PROGRAM)
  assert ''.join(tokenizer.pieces(ids)) == _PROGRAM
  assert tokenizer.pieces(tokenizer.encode('é')) == [r'\xc3', r'\xa9']


def test_ids_may_be_numpy_and_must_be_in_range(tokenizer):
  ids = np.array(tokenizer.encode('value'), np.int32)
  assert tokenizer.decode(ids) == tokenizer.decode(list(ids)) == 'value'
  for bad in (-1, 400):
    with pytest.raises(ValueError, match=rf'\[0, 400\), got {bad};'):
      tokenizer.decode([bad])


def test_saved_tokenizer_loads_as_the_same(tokenizer, tmp_path):
  path = tmp_path / 'new' / 'tokenizer.json'
  tokenizer.save(path)
  loaded = tokenizer_lib.Tokenizer.load(path)
  assert loaded.hash == tokenizer.hash
  assert (loaded.vocab_size, loaded.eot) == (400, 399)
  assert loaded.encode(_PROGRAM) == tokenizer.encode(_PROGRAM)
  assert loaded.decode(loaded.encode(_PROGRAM)) == _PROGRAM
  assert os.listdir(path.parent) == ['tokenizer.json']


def test_failed_save_leaves_the_old_file(tokenizer, tmp_path, monkeypatch):
  def fail(unused_descriptor):
    raise OSError(28, 'No space left on device')

  path = tmp_path / 'tokenizer.json'
  path.write_text('old')
  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='No space left'):
    tokenizer.save(path)
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['tokenizer.json']


@pytest.mark.parametrize('share', [0.0, 0.3, 0.999])
def test_damaged_file_is_refused(tokenizer, tmp_path, share):
  path = tmp_path / 'tokenizer.json'
  tokenizer.save(path)
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(ValueError, match=r'tokenizer file must .*delete it'):
    tokenizer_lib.Tokenizer.load(path)


def test_other_tokenizers_are_refused(tmp_path):
  path = tmp_path / 'tokenizer.json'
  with pytest.raises(ValueError, match='tokenizer file must'):
    tokenizer_lib.Tokenizer.load(path)
  tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(path))
  with pytest.raises(ValueError, match='as a special token, got none'):
    tokenizer_lib.Tokenizer.load(path)
  path.write_text(json.dumps({'vocab_size': 2048}))
  with pytest.raises(ValueError, match='tokenizer file must'):
    tokenizer_lib.Tokenizer.load(path)
