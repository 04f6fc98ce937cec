"""Tokenizers in the files of others encode here as tiktoken does there."""

import importlib
import json
import os
import pathlib
import random
import sysconfig

import hypothesis
import pytest
import tiktoken
import tiktoken.load
from hypothesis import strategies as st

from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.data.tokenizer import END_OF_TEXT, SPLIT_PATTERN
from sparse_interp.interop.hugging_face import bpe_files


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
  """tiktoken keeps a copy of local files, too, and looks no more at them."""
  monkeypatch.setenv('TIKTOKEN_CACHE_DIR', '')


def _python_source(most):
  """The library of the interpreter, at most so many characters."""
  texts = []
  for path in sorted(pathlib.Path(sysconfig.get_paths()['stdlib']).rglob('*')):
    if path.suffix != '.py' or 'site-packages' in path.parts:
      continue
    try:
      texts.append(path.read_text('utf-8'))
    except UnicodeDecodeError:
      continue  # a few of them test other encodings
    most -= len(texts[-1])
    if most <= 0:
      break
  return texts


@pytest.fixture(scope='module')
def trained():
  """2048 entries of the published format, on a part of the library."""
  return tokenizer_lib.train_tokenizer(_python_source(1_000_000), 2048)


@pytest.fixture(scope='module')
def reserved():
  """So little text that reserved entries fill the vocabulary."""
  return tokenizer_lib.train_tokenizer(['abab cd'] * 9, 280)


@pytest.fixture
def directory(trained, tmp_path):
  bpe_files.export(trained, tmp_path)
  return tmp_path


def _tiktoken(directory, pattern=SPLIT_PATTERN):
  """Read by tiktoken's own reader of these two files."""
  ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
    str(directory / 'vocab.bpe'), str(directory / 'encoder.json')
  )
  return tiktoken.Encoding(
    'theirs',
    pat_str=pattern,
    mergeable_ranks=ranks,
    special_tokens={END_OF_TEXT: len(ranks)},
  )


def _assert_same(ours, theirs, texts):
  for text in texts:
    ids = ours.encode(text)
    assert ids == theirs.encode(text, disallowed_special=())
    assert ours.decode(ids) == theirs.decode(ids)


def test_exported_files_are_read_as_the_same_tokenizer(
  trained, reserved, tmp_path
):
  for tokenizer in (trained, reserved):
    bpe_files.export(tokenizer, tmp_path)
    names = {'encoder.json', 'tokenizer.tiktoken', 'vocab.bpe'}
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == names
    loaded = bpe_files.load(tmp_path)
    assert loaded.hash == tokenizer.hash
    assert loaded.vocabulary() == tokenizer.vocabulary()
    assert loaded.special_tokens == tokenizer.special_tokens
    renamed = tmp_path / str(tokenizer.eot)
    renamed.mkdir()
    (tmp_path / 'encoder.json').rename(renamed / 'vocab.json')
    (tmp_path / 'vocab.bpe').rename(renamed / 'merges.txt')
    assert bpe_files.load(renamed).hash == tokenizer.hash


@pytest.fixture(scope='module')
def both(trained, tmp_path_factory):
  """Ours and theirs from the same files."""
  directory = tmp_path_factory.mktemp('both')
  bpe_files.export(trained, directory)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TIKTOKEN_CACHE_DIR', '')
    return bpe_files.load(directory), _tiktoken(directory)


@hypothesis.given(st.text() | st.binary().map(lambda b: b.decode('latin-1')))
def test_any_text_is_encoded_as_tiktoken_does(both, text):
  _assert_same(*both, [text])


@pytest.mark.slow
def test_random_bytes_and_some_source_are_encoded_as_tiktoken_does(both):
  ours, theirs = both
  rng = random.Random(0)
  texts = [rng.randbytes(2000).decode('latin-1') for _ in range(50)]
  texts += [rng.randbytes(2000).decode('utf-8', 'replace') for _ in range(50)]
  _assert_same(ours, theirs, texts + _python_source(300_000))
  assert theirs.n_vocab == ours.vocab_size == 2048
  assert theirs.eot_token == ours.eot == 2047


@pytest.mark.slow
def test_two_megabytes_of_source_are_encoded_as_tiktoken_does(both):
  texts = _python_source(2_000_000)
  assert sum(len(text.encode()) for text in texts) >= 2_000_000
  _assert_same(*both, texts)
  rng = random.Random(1)
  blocks = [rng.randbytes(10_000) for _ in range(200)]
  for decode in (('latin-1',), ('utf-8', 'replace')):
    _assert_same(*both, [block.decode(*decode) for block in blocks])


def test_pattern_of_gpt2_cuts_as_that_of_tiktoken(trained, tmp_path):
  merges = trained.merges()
  ids = dict(list(trained.vocabulary().items())[:2047])
  ours = tokenizer_lib.from_merges(
    ids, merges, [END_OF_TEXT], bpe_files.GPT2_PATTERN
  )
  bpe_files.export(ours, tmp_path)
  published = importlib.import_module('tiktoken_ext.openai_public')
  theirs = _tiktoken(tmp_path, published.r50k_pat_str)
  rng = random.Random(0)
  texts = [rng.randbytes(2000).decode('latin-1') for _ in range(20)]
  texts += ["it's we'll  they'RE 12345 \n\n x", ' ', '\u2003 \u2003a']
  _assert_same(ours, theirs, texts + _python_source(100_000))
  assert ours.hash != trained.hash


@pytest.mark.parametrize('alphabet', ['ab', ' a', '\n  x', "a's1 "])
def test_runs_in_which_merges_tie_are_encoded_as_tiktoken_does(
  alphabet, tmp_path
):
  rng = random.Random(0)
  for pattern in (SPLIT_PATTERN, bpe_files.GPT2_PATTERN):
    texts = [''.join(rng.choices(alphabet, k=50)) for _ in range(200)]
    tokenizer = tokenizer_lib.train_tokenizer(texts, 300)
    # No reserved entries, which tiktoken's reader does not know.
    merges = tokenizer.merges()
    ids = dict(list(tokenizer.vocabulary().items())[: 256 + len(merges)])
    full = tokenizer_lib.from_merges(ids, merges, [END_OF_TEXT], pattern)
    bpe_files.export(full, tmp_path)
    ours = bpe_files.load(tmp_path, pattern)
    assert ours.pattern == pattern
    texts = [''.join(rng.choices(alphabet, k=200)) for _ in range(50)]
    _assert_same(ours, _tiktoken(tmp_path, pattern), texts)


def test_ranks_of_tiktoken_hold_all_but_special_tokens(reserved, tmp_path):
  bpe_files.export(reserved, tmp_path)
  ranks = tiktoken.load.load_tiktoken_bpe(
    (tmp_path / 'tokenizer.tiktoken').as_posix()
  )
  theirs = tiktoken.Encoding(
    'ours',
    pat_str=reserved.pattern,
    mergeable_ranks=ranks,
    special_tokens=reserved.special_tokens,
  )
  assert len(reserved.special_tokens) > 2
  assert sorted([*ranks.values(), *reserved.special_tokens.values()]) == list(
    range(280)
  )
  _assert_same(reserved, theirs, ['abab cd', '<|endoftext|> <|reserved_0|> é'])
  assert theirs.eot_token == reserved.eot


def test_end_of_text_may_be_missing_from_the_files(trained, directory):
  path = directory / 'encoder.json'
  ids = json.loads(path.read_text())
  assert ids.pop(END_OF_TEXT) == 2047
  path.write_text(json.dumps(ids))
  assert bpe_files.load(directory).hash == trained.hash


def _ids(edit):
  def edit_file(directory):
    path = directory / 'encoder.json'
    ids = json.loads(path.read_text())
    path.write_text(json.dumps(edit(ids)))

  return edit_file


def _merges(edit):
  def edit_file(directory):
    path = directory / 'vocab.bpe'
    lines = path.read_text().split('\n')
    path.write_text('\n'.join(edit(lines)))

  return edit_file


def _swap(ids, first, second):
  return ids | {first: ids[second], second: ids[first]}


def _without_byte(ids):
  return {k: i for i, k in enumerate(k for k in ids if k != 'Ġ')}


@pytest.mark.parametrize(
  'edit',
  [
    lambda data: data.removeprefix(b'#version: 0.2\n'),
    lambda data: b'\xef\xbb\xbf' + data,
    lambda data: data.replace(b'\n', b'\r\n'),
    lambda data: data.removesuffix(b'\n'),
    lambda data: data.replace(b'0.2', b'0.2 - Trained by `huggingface`', 1),
  ],
)
def test_merges_of_every_writer_are_read(trained, directory, edit):
  path = directory / 'vocab.bpe'
  before = path.read_bytes()
  path.write_bytes(edit(before))
  assert path.read_bytes() != before
  assert bpe_files.load(directory).hash == trained.hash


def test_special_tokens_may_be_anywhere(trained, directory):
  """As other trainers put them: first, in the middle, or last."""
  path, ids = directory / 'encoder.json', trained.vocabulary()
  moved = {'<s>': 0, '[PAD]': 1, END_OF_TEXT: 2}
  rest = [entry for entry in ids if entry != END_OF_TEXT]
  moved |= {entry: i for i, entry in enumerate(rest, 3)}
  path.write_text(json.dumps(moved | {'<mask>': len(moved)}))
  loaded = bpe_files.load(directory)
  assert (loaded.eot, loaded.vocab_size) == (2, len(moved) + 1)
  assert list(loaded.special_tokens.values()) == [0, 1, 2, len(moved)]
  text = f'def f(x):\n  return {END_OF_TEXT} <s> [PAD] <mask>'
  assert loaded.encode(text) == [i + 3 for i in trained.encode(text)]
  assert loaded.decode(loaded.encode(text)) == text


def _pipe(path):
  path.unlink()
  os.mkfifo(path)


@pytest.mark.parametrize(
  ('edit', 'expected'),
  [
    (lambda d: (d / 'vocab.bpe').unlink(), 'vocab.bpe must be readable'),
    (lambda d: (d / 'encoder.json').unlink(), 'must hold encoder.json and'),
    (lambda d: (d / 'vocab.bpe').write_bytes(b'\xff'), 'must be UTF-8'),
    (
      lambda d: (d / 'vocab.bpe').write_bytes(b' ' * (2**24 + 1)),
      'at most 16 MiB',
    ),
    (lambda d: (d / 'encoder.json').write_text('[]'), 'must be a json object'),
    (lambda d: (d / 'encoder.json').write_text('{}'), 'an entry for every'),
    (_merges(lambda lines: [*lines[:9], 'a b c', *lines[9:]]), 'on line 10'),
    (_merges(lambda lines: [*lines[:9], '', *lines[9:]]), "'' on line 10"),
    (_merges(lambda lines: [*lines[:9], lines[5], *lines[9:]]), 'twice'),
    (_merges(lambda lines: [*lines[:-1], 'q qz', '']), 'made by no merge'),
    (_merges(lambda lines: [*lines[:-1], '\xff \xff', '']), 'without an id'),
    (_merges(lambda lines: lines[:-3]), 'every entry by a merge'),
    (_ids(lambda ids: ids | {'!': 1}), r'each once, got 1 for'),
    (_ids(lambda ids: ids | {'!': -1}), 'got -1 for'),
    (_ids(lambda ids: ids | {'!': True}), 'got True for'),
    (_ids(lambda ids: ids | {'!': 10**9}), '1000000000 for'),
    (_ids(_without_byte), 'every byte, got none for byte 32'),
    (_ids(lambda ids: ids | {'nobody': 2048}), "'nobody', by none"),
    (_ids(lambda ids: ids | {'<|日|>': 2048}), 'by none'),
    (_ids(lambda ids: _swap(ids, '!', END_OF_TEXT)), 'order of the merges'),
    (_ids(lambda ids: ids | {'a': 10**30}), 'each once, got 1000'),
    (_ids(lambda ids: ids | {'a': 1.0}), 'whole numbers as ids, got 1.0'),
    (lambda d: _pipe(d / 'vocab.bpe'), 'must be a file'),
    (
      _ids(lambda ids: _swap(ids, *list(ids)[300:302])),
      'in the order of the merges',
    ),
  ],
)
def test_files_that_do_not_belong_together_are_refused(
  directory, edit, expected
):
  edit(directory)
  with pytest.raises(ValueError, match=expected) as info:
    bpe_files.load(directory)
  assert '\n' not in str(info.value)
  assert len(str(info.value)) < 400


@pytest.mark.slow
@hypothesis.given(
  st.sampled_from(['encoder.json', 'vocab.bpe']),
  st.floats(0, 1, exclude_max=True),
  st.binary(max_size=4),
)
@hypothesis.settings(max_examples=100)
def test_mutated_files_load_or_are_refused_in_one_line(
  reserved, tmp_path_factory, name, where, replacement
):
  directory = tmp_path_factory.mktemp('mutated')
  bpe_files.export(reserved, directory)
  path = directory / name
  content = bytearray(path.read_bytes())
  at = int(where * len(content))
  content[at : at + len(replacement)] = replacement
  if not replacement:
    del content[at:]
  path.write_bytes(content)
  try:
    tokenizer = bpe_files.load(directory)
  except ValueError as error:
    assert '\n' not in str(error)  # noqa: PT017
  else:
    assert tokenizer.decode(tokenizer.encode('abab cd\0é')) == 'abab cd\0é'
