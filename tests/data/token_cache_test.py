"""Claims about the token streams on disk, whole, damaged and reused."""

import errno
import os

import numpy as np
import pytest

from sparse_interp.data import token_cache
from sparse_interp.data import tokenizer as tokenizer_lib

_DOCUMENTS = [f'def f_{i}():\n  return {i}\n' * (i % 7 + 1) for i in range(60)]


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizer_lib.train_tokenizer(_DOCUMENTS, 300)


@pytest.fixture
def cache(tmp_path, tokenizer, monkeypatch):
  """A cache that holds _DOCUMENTS, and the function that reads it again."""
  # Even these streams are then checked in several pieces.
  monkeypatch.setattr(token_cache, '_CHECK_BYTES', 128)
  tokens = np.array(token_cache.build(tmp_path, _DOCUMENTS, tokenizer))

  def rebuild():
    calls = []
    again = token_cache.build(
      tmp_path,
      _DOCUMENTS,
      tokenizer,
      progress=lambda done, total: calls.append((done, total)),
    )
    np.testing.assert_array_equal(again, tokens)
    return bool(calls)

  return tmp_path, rebuild


def test_stream_is_each_document_after_an_end_of_text(tmp_path, tokenizer):
  tokens = token_cache.build(tmp_path, _DOCUMENTS, tokenizer)
  expected = []
  for document in _DOCUMENTS:
    expected += [tokenizer.eot, *tokenizer.encode(document)]
  assert tokens.tolist() == expected
  assert tokens.dtype == np.uint16
  assert isinstance(tokens, np.memmap)
  with pytest.raises(ValueError, match='read-only'):
    tokens[0] = 1


def test_stream_does_not_depend_on_the_size_of_encoding_batches(
  cache, tokenizer, tmp_path_factory, monkeypatch
):
  directory, _ = cache
  monkeypatch.setattr(token_cache, '_BATCH_BYTES', 100)
  calls = []
  again = token_cache.build(
    tmp_path_factory.mktemp('cache'),
    _DOCUMENTS,
    tokenizer,
    progress=lambda done, total: calls.append((done, total)),
  )
  np.testing.assert_array_equal(
    again, token_cache.build(directory, _DOCUMENTS, tokenizer)
  )
  done, totals = zip(*calls, strict=True)
  assert len(done) > 5
  assert list(done) == sorted(set(done))
  assert done[-1] == len(_DOCUMENTS)
  assert set(totals) == {len(_DOCUMENTS)}


def test_large_vocabularies_take_32_bits(tmp_path):
  tokenizer = tokenizer_lib.train_tokenizer(_DOCUMENTS, 2**16 + 1)
  tokens = token_cache.build(tmp_path, ['a'], tokenizer)
  assert tokens.dtype == np.uint32
  assert tokens.tolist() == [2**16, *tokenizer.encode('a')]


def test_no_documents_make_an_empty_stream(tmp_path, tokenizer):
  for _ in range(2):
    assert len(token_cache.build(tmp_path, [], tokenizer, 'validation')) == 0


def test_whole_stream_is_used_again(cache):
  _, rebuild = cache
  assert not rebuild()


def test_documents_tokenizer_and_split_are_the_key(cache, tokenizer):
  directory, rebuild = cache
  other = tokenizer_lib.train_tokenizer(_DOCUMENTS, 301)
  streams = [
    token_cache.build(directory, _DOCUMENTS[::-1], tokenizer),
    token_cache.build(directory, _DOCUMENTS[:-1], tokenizer),
    token_cache.build(directory, _DOCUMENTS, other),
    token_cache.build(directory, _DOCUMENTS, tokenizer, 'validation'),
  ]
  assert streams[0][-1] == tokenizer.encode(_DOCUMENTS[0])[-1]
  assert len(streams[1]) < len(streams[3])
  assert streams[2][0] == 300
  assert len(list(directory.glob('*.npy'))) == 5
  assert not rebuild()


def _truncate(content: bytes) -> bytes:
  return content[:-1]


def _keep_header(content: bytes) -> bytes:
  return content[:128]


def _empty(unused_content: bytes) -> bytes:
  return b''


def _flip_first_bit(content: bytes) -> bytes:
  return content[:128] + bytes([content[128] ^ 1]) + content[129:]


def _flip_last_bit(content: bytes) -> bytes:
  return content[:-1] + bytes([content[-1] ^ 1])


def _shorten_and_say_so(content: bytes) -> bytes:
  """A stream that ends early but is a valid file."""
  tokens = np.frombuffer(content[128:], np.uint16)[:-1]
  length, shorter = f'({len(tokens) + 1},)', f'({len(tokens)},)'
  header = content[:128].replace(length.encode(), shorter.encode())
  assert header != content[:128]
  return header + tokens.tobytes()


@pytest.mark.parametrize(
  ('suffix', 'damage'),
  [
    ('npy', _truncate),
    ('npy', _keep_header),
    ('npy', _empty),
    ('npy', _flip_first_bit),
    ('npy', _flip_last_bit),
    ('npy', _shorten_and_say_so),
    ('json', _truncate),
    ('json', _empty),
  ],
)
def test_damaged_stream_is_made_again(cache, suffix, damage):
  directory, rebuild = cache
  (path,) = directory.glob(f'*.{suffix}')
  path.write_bytes(damage(path.read_bytes()))
  assert rebuild()
  assert not rebuild()


def test_missing_half_is_made_again(cache):
  directory, rebuild = cache
  for suffix in ('npy', 'json'):
    (path,) = directory.glob(f'*.{suffix}')
    path.unlink()
    assert rebuild()


def test_full_disk_leaves_nothing_half_written(
  tmp_path, tokenizer, monkeypatch
):
  def fail(unused_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='No space left'):
      token_cache.build(tmp_path, _DOCUMENTS, tokenizer)
  assert os.listdir(tmp_path) == []
  assert len(token_cache.build(tmp_path, _DOCUMENTS, tokenizer))
  assert not list(tmp_path.glob('*.part'))
