"""Claims about which documents a corpus holds, and on which side they are."""

import gzip
import json
import pathlib
import socket
import sys
import sysconfig
import textwrap
import uuid

import fsspec
import hypothesis
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from sparse_interp.data import corpora

_TEXTS = st.lists(st.text(max_size=20), min_size=1, max_size=30)


def _write_jsonl(documents, field='text') -> str:
  """Writes to fsspec's file system in memory and returns the path."""
  path = f'memory://{uuid.uuid4()}.jsonl'
  with fsspec.open(path, 'w', encoding='utf-8') as file:
    for document in documents:
      file.write(json.dumps({field: document}) + '\n')
  return path


def _size(documents) -> int:
  return sum(len(document.encode()) for document in documents)


def _error(spec, **arguments) -> str:
  with pytest.raises(ValueError) as raised:
    corpora.read_corpus(spec, 0, **arguments)
  message = str(raised.value)
  assert '\n' not in message
  assert message.startswith('data.')
  return message


def test_stdlib_is_the_running_librarys_source():
  documents = corpora.read_corpus('stdlib', 0)
  assert pathlib.Path(textwrap.__file__).read_text() in documents
  assert _size(documents) > 5e6
  assert len(set(documents)) == len(documents)


def test_stdlib_leaves_out_installed_packages_and_other_encodings(
  tmp_path, monkeypatch
):
  for name, content in {
    'ours.py': b'a = 1',
    'package/ours.py': b'b = 1',
    'site-packages/theirs.py': b'c = 1',
    'dist-packages/theirs.py': b'd = 1',
    'latin.py': 'é = 1'.encode('latin-1'),
    'empty.py': b'',
    'notes.txt': b'e = 1',
  }.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
  monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(tmp_path))
  assert set(corpora.read_corpus('stdlib', 0)) == {'a = 1', 'b = 1'}


@pytest.mark.slow
def test_stdlib_sample_within_a_limit_spans_the_library():
  documents = corpora.read_corpus('stdlib', 0, 1_000_000)
  assert 700_000 < _size(documents) <= 1_000_000
  again = corpora.read_corpus('stdlib', 0, 1_000_000)
  assert corpora.corpus_hash(again) == corpora.corpus_hash(documents)
  other = corpora.read_corpus('stdlib', 1, 1_000_000)
  assert len(set(documents) & set(other)) < len(documents) / 2


@pytest.mark.slow
@hypothesis.given(_TEXTS, st.randoms(use_true_random=False))
def test_documents_are_distinct_and_do_not_depend_on_their_order(texts, random):
  hypothesis.assume(any(texts))
  documents = corpora.read_corpus(f'jsonl:{_write_jsonl(texts)}', 3)
  assert sorted(documents) == sorted(set(texts) - {''})
  shuffled = texts + texts[:5]
  random.shuffle(shuffled)
  again = corpora.read_corpus(f'jsonl:{_write_jsonl(shuffled)}', 3)
  assert again == documents


@hypothesis.given(_TEXTS, st.integers(1, 100))
def test_limit_keeps_the_longest_prefix_that_fits(texts, max_bytes):
  spec = f'jsonl:{_write_jsonl([*texts, "a"])}'
  fitting = [
    document
    for document in corpora.read_corpus(spec, 0)
    if _size([document]) <= max_bytes
  ]
  documents = corpora.read_corpus(spec, 0, max_bytes)
  assert documents == fitting[: len(documents)]
  assert _size(documents) <= max_bytes
  if len(documents) < len(fitting):
    assert _size(fitting[: len(documents) + 1]) > max_bytes


def test_order_follows_from_the_seed():
  spec = f'jsonl:{_write_jsonl(map(str, range(50)))}'
  orders = [corpora.read_corpus(spec, seed) for seed in (0, 0, 1)]
  assert orders[0] == orders[1] != orders[2]
  assert sorted(orders[0]) == sorted(orders[2])


def test_files_match_a_recursive_glob_in_any_place(tmp_path):
  for name in ('a.py', 'b/c.py', 'b/d/e.py', 'b/f.txt'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
  (tmp_path / 'b/binary.py').write_bytes(b'\xff\xfe')
  documents = corpora.read_corpus(f'files:{tmp_path}/**/*.py', 0)
  assert sorted(documents) == ['a.py', 'b/c.py', 'b/d/e.py']
  memory = fsspec.filesystem('memory')
  memory.put(f'{tmp_path}/', '/corpora_test/', recursive=True)
  remote = corpora.read_corpus('files:memory://corpora_test/**/*.py', 0)
  assert remote == documents


def test_jsonl_takes_globs_compression_and_another_field(tmp_path):
  (tmp_path / '0.jsonl').write_text('{"code": "a"}\n\n{"code": "b", "x": 1}\n')
  with gzip.open(tmp_path / '1.jsonl.gz', 'wt') as file:
    file.write('{"code": "c"}\n{"code": "\\ud800"}')
  documents = corpora.read_corpus(f'jsonl:{tmp_path}/*#code', 0)
  assert sorted(documents) == ['a', 'b', 'c']


def test_parquet_reads_the_text_field(tmp_path):
  table = pyarrow.table({'text': ['a', None, '', 'b'], 'code': list('wxyz')})
  pyarrow.parquet.write_table(table, tmp_path / 'x.parquet')
  spec = f'parquet:{tmp_path}/x.parquet'
  assert sorted(corpora.read_corpus(spec, 0)) == ['a', 'b']
  assert sorted(corpora.read_corpus(f'{spec}#code', 0)) == list('wxyz')


def test_local_corpora_open_no_socket(tmp_path, monkeypatch):
  def refuse(*unused_arguments, **unused_options):
    raise AssertionError('a socket was opened')

  (tmp_path / 'a.jsonl').write_text('{"text": "a"}')
  table = pyarrow.table({'text': ['a']})
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  monkeypatch.setattr(socket, 'socket', refuse)
  monkeypatch.setattr(socket, 'create_connection', refuse)
  monkeypatch.setattr(socket, 'getaddrinfo', refuse)
  for spec in (
    'stdlib',
    'idioms',
    f'files:{tmp_path}/*',
    f'jsonl:{tmp_path}/a.jsonl',
    f'parquet:{tmp_path}/a.parquet',
  ):
    assert corpora.read_corpus(spec, 0, 100_000)


@pytest.mark.slow
@hypothesis.given(
  st.lists(st.text(min_size=8, max_size=12), min_size=50, unique=True),
  st.lists(st.text(max_size=12)),
  st.floats(0.3, 0.7),
)
def test_split_is_disjoint_complete_and_stable(documents, more, fraction):
  train, validation = corpora.split_documents(documents, fraction)
  assert set(train).isdisjoint(validation)
  assert sorted(train + validation) == sorted(documents)
  all_train, all_validation = corpora.split_documents(
    [*more, *documents], fraction
  )
  assert set(train) <= set(all_train)
  assert set(validation) <= set(all_validation)


@hypothesis.given(
  st.lists(st.text(), min_size=1, max_size=3, unique=True),
  st.floats(0.01, 0.99),
)
def test_few_documents_lose_no_text_and_leave_no_side_empty(
  documents, fraction
):
  train, validation = corpora.split_documents(documents, fraction)
  text = sorted(''.join(documents))
  assert sorted(''.join([*train, *validation])) == text
  if max(map(len, documents)) >= 2:
    assert train
    assert validation


@pytest.mark.parametrize('line', ['x = 1\n', 'if a:\r\n', 'a' * 997])
@pytest.mark.parametrize('others', [[], ['', 'a = 1\n'], ['def f(): ...'] * 9])
@pytest.mark.parametrize('fraction', [0.02, 0.1, 0.5])
def test_a_document_that_is_most_of_the_corpus_is_cut(line, others, fraction):
  lines = [f'{i} {line}' for i in range(1000)]
  whole = ''.join(lines)
  train, validation = corpora.split_documents([*others, whole], fraction)
  assert train[-1] + validation[-1] == whole
  assert train[-1].endswith('\n') == line.endswith('\n')
  assert abs(len(validation[-1]) / len(whole) - fraction) < fraction / 2


def test_a_long_line_among_short_ones_does_not_decide_where_a_cut_is():
  whole = 'header\n' + 'a' * 10_000 + '\nfooter\n'
  (train,), (validation,) = corpora.split_documents([whole], 0.1)
  assert train + validation == whole
  assert 900 < len(validation) < 1100


@pytest.mark.parametrize('kind', ['files', 'directory', 'jsonl', 'parquet'])
def test_one_document_of_any_kind_is_for_training_and_validation(
  tmp_path, kind
):
  text = ''.join(f'x{i} = {i}\n' for i in range(1000))
  path = tmp_path / 'only'
  if kind == 'jsonl':
    path.write_text(json.dumps({'text': text}) + '\n')
  elif kind == 'parquet':
    pyarrow.parquet.write_table(pyarrow.table({'text': [text]}), path)
  else:
    path.write_text(text)
  spec = f'{kind}:{path}'
  if kind == 'directory':
    spec = f'files:{tmp_path}/**'
  documents = corpora.read_corpus(spec, 0)
  (train,), (validation,) = corpora.split_documents(documents, 0.1)
  assert train + validation == text
  assert validation.startswith('x9')


def test_split_has_the_fraction_asked_for():
  documents = [f'document {i}' for i in range(4000)]
  assert corpora.split_documents(documents, 0.0) == (documents, [])
  _, validation = corpora.split_documents(documents, 0.1)
  assert 320 < len(validation) < 480  # 4 standard deviations
  with pytest.raises(ValueError, match=r'data\.validation_fraction .*got 1\.0'):
    corpora.split_documents(documents, 1.0)


def test_corpus_hash_tells_contents_and_borders_apart():
  hashes = [['ab'], ['a', 'b'], ['b', 'a'], ['a', 'b', ''], []]
  assert len({corpora.corpus_hash(documents) for documents in hashes}) == 5


@pytest.mark.parametrize(
  ('spec', 'parts'),
  [
    ('stdlub', ['stdlub', 'stdlib, idioms, files:']),
    ('file:x', ['file:x', 'files:<glob>']),
    ('files:{}/*.none', ['at least one file', '*.none']),
    ('files:', ['at least one file']),
    ('jsonl:{}/none.jsonl', ['at least one file', 'none.jsonl']),
    ('parquet:{}/none.parquet', ['at least one file', 'none.parquet']),
    ('files:nowhere://x', ['nowhere', 'fsspec']),
    ('jsonl:{}/bad.jsonl', ['bad.jsonl line 2', 'JSON object per line']),
    ('jsonl:{}/list.jsonl', ["field 'text'", 'list', 'list.jsonl line 1']),
    ('jsonl:{}/good.jsonl#no', ["field 'no'", 'good.jsonl line 1', '#field']),
    ('jsonl:{}/good.jsonl#number', ["field 'number'", 'good.jsonl line 1']),
    ('parquet:{}/good.parquet#no', ["field 'no'", 'number', '#field']),
    ('parquet:{}/good.parquet#number', ["field 'number'", 'int64']),
    ('parquet:{}/good.jsonl', ['parquet files', 'good.jsonl']),
    ('files:{}/broken.gz', ['readable files', 'broken.gz']),
    ('files:{}/broken.xz', ['readable files', 'broken.xz']),
    ('parquet:{}/broken.parquet', ['readable files', 'broken.parquet']),
    ('files:{}/empty.py', ['no such document', 'empty.py']),
  ],
)
def test_errors_name_field_value_and_remedy(spec, parts, tmp_path):
  (tmp_path / 'good.jsonl').write_text('{"text": "a", "number": 1}')
  (tmp_path / 'bad.jsonl').write_text('{"text": "a"}\n{"text": "b"\n')
  (tmp_path / 'list.jsonl').write_text('["a"]')
  (tmp_path / 'broken.gz').write_bytes(gzip.compress(b'text' * 100)[:-20])
  (tmp_path / 'broken.xz').write_bytes(b'not compressed')
  (tmp_path / 'empty.py').touch()
  table = pyarrow.table({'text': ['a'], 'number': [1]})
  pyarrow.parquet.write_table(table, tmp_path / 'good.parquet')
  whole = (tmp_path / 'good.parquet').read_bytes()
  (tmp_path / 'broken.parquet').write_bytes(b'\xff' * 200 + whole[200:])
  message = _error(spec.format(tmp_path))
  for part in ['data.corpora must', 'got', *parts]:
    assert part in message


def test_missing_pyarrow_is_named_with_its_remedy(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  message = _error(f'parquet:{tmp_path}/x.parquet')
  assert "pip install 'sparse_interp[parquet]'" in message


def test_limits_are_checked():
  assert 'data.max_bytes' in _error('stdlib', max_bytes=0)
  assert 'data.max_bytes' in _error('idioms', max_bytes=None)
  spec = f'jsonl:{_write_jsonl(["long"])}'
  assert 'within 3 bytes' in _error(spec, max_bytes=3)
