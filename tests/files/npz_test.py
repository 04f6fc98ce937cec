"""Archives of arrays are believed only as far as their bytes go."""

import io
import resource
import subprocess
import sys
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from sparse_interp.files import npz

_ARRAYS = {
  'numbers': np.arange(12, dtype=np.float32).reshape(3, 4),
  'none': np.zeros((0, 5), np.int64),
  'one': np.float64(2),
  'text': np.array('für'),
  'flags': np.array([True, False]),
  'columns': np.asfortranarray(np.arange(6).reshape(2, 3)),
}


def _header(descr, shape, version=b'\x01\x00'):
  text = repr({'descr': descr, 'fortran_order': False, 'shape': shape})
  text = text.encode() + b'\n'
  return b'\x93NUMPY' + version + len(text).to_bytes(2, 'little') + text


def _archive(path, *members, compression=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, content in members:
      archive.writestr(name, content)
  return path


def _refused(path, part, **options):
  with pytest.raises(ValueError, match='must be a whole npz archive') as error:
    npz.read(path, 'write it again', **options)
  assert '\n' not in str(error.value)
  assert str(error.value).endswith('; write it again.')
  assert part in str(error.value)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
  save(tmp_path / 'a.npz', **_ARRAYS)
  found = npz.read(tmp_path / 'a.npz', 'again')
  assert found.keys() == _ARRAYS.keys()
  for name, array in _ARRAYS.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == np.asarray(array).dtype
  with npz.opened(tmp_path / 'a.npz', 'again') as archive:
    assert archive.headers['numbers'] == ((3, 4), np.dtype(np.float32))


@pytest.mark.parametrize(
  ('content', 'part'),
  [
    (b'', 'damaged'),
    (b'text', 'damaged'),
    (_header('<f4', (2,)) + b'1234', 'of shape (2,)'),
    (_header('<f4', (1,)) + b'12345678', 'of shape (1,)'),
    (_header('<f4', (10**12,)), 'of shape (1000000000000,)'),
    (_header('<f4', (-1, -4)) + b'1' * 16, 'of shape (-1, -4)'),
    (_header('<f4', (10**30, 0)), ''),
    (_header('|O', (1,)) + b'12345678', 'object'),
    (_header([('a', '<f4')], (1,)) + b'1234', 'dtype'),
    (_header('|V4', (1,)) + b'1234', 'dtype'),
    (_header('<U99999999999', (1,)), ''),
    (_header('nonsense', (1,)), 'damaged'),
    (_header('<f4', (1,), b'\x09\x00') + b'1234', 'damaged'),
    (b'\x93NUMPY\x01\x00\xff\x0f' + b'(' * 4095, 'damaged'),
    (b'\x93NUMPY\x02\x00\xff\xff\xff\xff' + b'1' * 99, 'damaged'),
  ],
)
def test_headers_that_say_what_is_not_there_are_refused(
  content, part, tmp_path
):
  _refused(_archive(tmp_path / 'a.npz', ('x.npy', content)), part)


def test_members_are_there_once_and_are_arrays(tmp_path):
  array = io.BytesIO()
  np.save(array, np.ones(3))
  path = tmp_path / 'a.npz'
  with pytest.warns(UserWarning, match='Duplicate'):
    _archive(path, *[('x.npy', array.getvalue())] * 2)
  _refused(path, 'x twice')
  _archive(path, ('x.npy', array.getvalue()), ('notes.txt', b'notes'))
  assert [*npz.read(path, 'again')] == ['x']
  _archive(path, ('x.npy', array.getvalue()), compression=zipfile.ZIP_LZMA)
  _refused(path, 'compressed in another way')
  np.save(path.open('wb'), np.ones(3))
  _refused(path, 'not a zip file')


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
  path = tmp_path / 'bomb.npz'
  with (
    zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open('x.npy', 'w', force_zip64=True) as member,
  ):
    member.write(_header('<f4', (2**28,)))
    for _ in range(2**10):
      member.write(bytes(2**20))
  assert path.stat().st_size < 2_000_000
  program = (
    'import sys; from sparse_interp.files import npz\n'
    'try: npz.read(sys.argv[1], "again", int(sys.argv[2]))\n'
    'except ValueError as error: print(error)'
  )

  def limit():
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

  for most, part in ((2**20, 'more than 1,048,576'), (2**31, 'x damaged')):
    done = subprocess.run(
      [sys.executable, '-c', program, path, str(most)],
      capture_output=True,
      text=True,
      preexec_fn=limit,
      check=True,
    )
    assert part in done.stdout
    assert done.stdout.count('\n') == 1


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=200)
def test_damage_is_seen(tmp_path_factory, data):
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **_ARRAYS)
  content = bytearray(buffer.getvalue())
  at = data.draw(st.integers(0, 8 * len(content) - 1))
  content[at // 8] ^= 1 << at % 8
  if data.draw(st.booleans()):
    del content[data.draw(st.integers(0, len(content))) :]
  path = tmp_path_factory.mktemp('damage') / 'a.npz'
  path.write_bytes(content)
  try:
    found = npz.read(path, 'again')
  except ValueError as error:
    assert '\n' not in str(error)  # noqa: PT017
    return
  for name in found.keys() & _ARRAYS.keys():
    np.testing.assert_array_equal(found[name], _ARRAYS[name])
