"""Corpora of other people: every kind of text, and nothing that never ends."""

import bz2
import collections
import gzip
import lzma
import os
import random
import resource
import subprocess
import sys
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from sparse_interp.data import corpora

_TEXTS = ['a', None, '', 'b', 'a']


def _read(spec, max_bytes=None):
  """(documents in order, what was left out)."""
  left_out = collections.Counter()
  documents = corpora.read_corpus(str(spec), 0, max_bytes, left_out)
  return sorted(documents), dict(left_out)


def _refused(spec, *parts, **options):
  with pytest.raises(ValueError, match=r'^data\.') as error:
    corpora.read_corpus(str(spec), 0, **options)
  assert '\n' not in str(error.value)
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize('dictionary', [True, False])
@pytest.mark.parametrize(
  'column',
  [
    pyarrow.array(_TEXTS),
    pyarrow.array(_TEXTS, pyarrow.large_string()),
    pyarrow.array(_TEXTS, pyarrow.string_view()),
    pyarrow.array(_TEXTS).dictionary_encode(),
    pyarrow.array(_TEXTS, pyarrow.large_string()).dictionary_encode(),
    pyarrow.chunked_array([['a', None], ['', 'b', 'a']]),
  ],
  ids=lambda column: str(column.type),
)
def test_every_kind_of_text_column_is_read(column, dictionary, tmp_path):
  path = tmp_path / 'a.parquet'
  table = pyarrow.table({'id': range(5), 'text': column})
  pyarrow.parquet.write_table(table, path, use_dictionary=dictionary)
  documents, left_out = _read(f'parquet:{path}')
  assert documents == ['a', 'b']
  assert left_out == {'null': 1, 'empty': 1}


def test_columns_that_hold_no_text_are_refused_with_what_they_hold(tmp_path):
  path = tmp_path / 'a.parquet'
  for column, kind in (
    ([1, 2], 'int64'),
    ([b'a', b'b'], 'binary'),
    ([['a'], ['b']], 'list<'),
  ):
    pyarrow.parquet.write_table(pyarrow.table({'text': column}), path)
    _refused(f'parquet:{path}', f'got {kind}', 'name another field')
  pyarrow.parquet.write_table(pyarrow.table({'text': [None, None]}), path)
  _refused(f'parquet:{path}', 'no such document', '(2 null left out)')
  twice = pyarrow.table([['a'], ['b']], names=['text', 'text'])
  pyarrow.parquet.write_table(twice, path)
  _refused(f'parquet:{path}', "one field 'text', got 2")


@pytest.mark.slow
def test_a_text_that_a_million_rows_share_takes_its_room_once(tmp_path):
  path = tmp_path / 'a.parquet'
  text = pyarrow.DictionaryArray.from_arrays(
    pyarrow.array([0] * 10**6, pyarrow.int32()), ['x' * 10**6]
  )
  pyarrow.parquet.write_table(pyarrow.table({'text': text}), path)
  _within(2**32, f'parquet:{path}', None, '1 document')


@pytest.mark.slow
def test_damaged_parquet_is_read_or_refused_in_one_line(tmp_path):
  rng = random.Random(0)
  table = pyarrow.table({'text': ['a' * 50, None, 'b', 'é'] * 30})
  pyarrow.parquet.write_table(table, tmp_path / 'whole', compression='none')
  whole = (tmp_path / 'whole').read_bytes()
  path = tmp_path / 'a.parquet'
  for _ in range(500):
    content = bytearray(whole)
    # Texts and their numbers come first.
    content[rng.randrange(300)] = rng.randrange(256)
    path.write_bytes(content)
    try:
      corpora.read_corpus(f'parquet:{path}', 0)
    except ValueError as error:
      assert str(error).startswith('data.')  # noqa: PT017
      assert '\n' not in str(error)  # noqa: PT017


def test_null_is_left_out_of_json_lines_and_counted(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(
    '{"text": "a"}\n{"text": null}\n\n{"text": ""}\n{"text": "\\ud800"}\n'
    '{"text": null, "more": NaN, "more": 1}\n{"text": "long enough"}\n'
  )
  assert _read(f'jsonl:{path}', 5) == (
    ['a'],
    {'null': 2, 'empty': 1, 'not UTF-8': 1, 'larger than data.max_bytes': 1},
  )
  path.write_text('{"text": null}\n')
  _refused(f'jsonl:{path}', 'no such document', '(1 null left out)')


def test_files_left_out_are_counted(tmp_path):
  (tmp_path / 'a').write_text('a')
  (tmp_path / 'b').write_bytes(b'\xff')
  (tmp_path / 'c').write_text('longer')
  assert _read(f'files:{tmp_path}/*', 4) == (
    ['a'],
    {'not UTF-8': 1, 'larger than data.max_bytes': 1},
  )


def test_a_line_that_is_odd_says_what_was_found_and_where(tmp_path):
  path = tmp_path / 'a.jsonl'
  for line, parts in (
    ('{"text": 5}', ["field 'text', got a number '5'"]),
    ('{"text": ["a"]}', ["field 'text', got a list"]),
    ('{"text": {}}', ['got an object']),
    ('{"text": true}', ['got true']),
    ('{"body": "a", "id": 1}', ['got the fields body, id', '#field']),
    ('{}', ['an empty object']),
    ('[1]', ['got a list']),
    ('null', ['got null']),
    ('{"text": "a", "b": ' + '[' * 10**5, ['nested too deep']),
    ('{"text": "a"', ['one JSON object per line']),
  ):
    path.write_text('{"text": "a"}\n' + line + '\n')
    _refused(f'jsonl:{path}', f'in {path} line 2', *parts)


def test_what_is_no_file_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'zero').symlink_to('/dev/zero')
  for kind in ('files', 'jsonl', 'parquet'):
    _refused(f'{kind}:{tmp_path}/pipe', 'a pipe')
    _refused(f'{kind}:{tmp_path}/zero', 'a device')
    _refused(f'{kind}:file://{tmp_path}/zero', 'a device')
    _refused(f'{kind}:/dev/zero', 'a device')
    with pytest.raises(ValueError, match='a device'):
      corpora.check_corpus(f'{kind}:{tmp_path}/zero')
  (tmp_path / 'text').write_text('a')
  # Beside files they are no matches, as directories are none.
  assert _read(f'files:{tmp_path}/*') == (['a'], {})


def test_links_to_files_match_patterns(tmp_path):
  (tmp_path / 'blobs').mkdir()
  (tmp_path / 'blobs' / '0').write_text('a')
  (tmp_path / 'snapshot').mkdir()
  (tmp_path / 'snapshot' / 'a.txt').symlink_to('../blobs/0')
  (tmp_path / 'snapshot' / 'gone.txt').symlink_to('../blobs/1')
  assert _read(f'files:{tmp_path}/snapshot/*.txt')[0] == ['a']


def test_damaged_archives_are_refused_in_one_line(tmp_path):
  for name, content in (
    ('a.zip', b'nothing'),
    ('b.zip', b'PK\5\6' + bytes(18)),
    ('c.gz', gzip.compress(b'text')[:-3]),
    ('d.xz', lzma.compress(b'text')[:-3]),
    ('e.bz2', b'text'),
  ):
    (tmp_path / name).write_bytes(content)
    _refused(f'files:{tmp_path}/{name}', 'readable files', name)


def _within(memory, spec, max_bytes, part):
  """Reads a corpus in another process that has so much memory."""
  program = (
    'import sys; from sparse_interp.data import corpora\n'
    'most = int(sys.argv[2]) or None\n'
    'try: print(len(corpora.read_corpus(sys.argv[1], 0, most)), "document")\n'
    'except ValueError as error: print(error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, spec, str(max_bytes or 0)],
    capture_output=True,
    text=True,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    check=True,
  )
  assert part in done.stdout
  assert done.stdout.count('\n') == 1


def _bomb(path, opener, blocks):
  with opener(path, 'wb') as file:
    for _ in range(blocks):
      file.write(bytes(2**24))


@pytest.mark.slow
def test_bombs_are_not_inflated_beyond_what_is_asked(tmp_path):
  _bomb(tmp_path / 'a.gz', gzip.open, 80)
  _bomb(tmp_path / 'a.bz2', bz2.open, 16)
  _bomb(tmp_path / 'a.xz', lzma.open, 16)
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('a', bytes(2**28))
  for name in ('a.gz', 'a.bz2', 'a.xz', 'a.zip'):
    path = tmp_path / name
    assert path.stat().st_size < 2**21
    _within(2**32, f'files:{path}', 10**6, 'larger than data.max_bytes left')
    _within(2**32, f'jsonl:{path}', 10**6, 'a line of more than')
  _within(2**33, f'files:{tmp_path}/a.gz', None, 'at most 1,073,741,824 bytes')
  # Where memory ends before that.
  _within(2**30, f'files:{tmp_path}/a.gz', None, 'readable files')


def test_a_large_file_is_read_no_further_than_its_limit(tmp_path):
  path = tmp_path / 'a.gz'
  with gzip.open(path, 'wb', compresslevel=1) as file:
    for _ in range(100):
      file.write(bytes(2**20))
  content = bytearray(path.read_bytes())
  content[-8:] = bytes(8)  # the checksum, which only reading to the end sees
  path.write_bytes(content)
  _refused(f'files:{path}', 'larger than data.max_bytes', max_bytes=1000)
  _refused(f'files:{path}', 'CRC')
