import collections
import os
import pickle
import struct
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.interop.torch_file import torch_file, torch_unpickler

_TENSOR = 'ctorch._utils\n_rebuild_tensor_v2\n'


def _archive(path, pickled, storages=(), **options):
  """A .pt file around a pickle and the bytes of its storages."""
  with zipfile.ZipFile(path, 'w', **options) as archive:
    archive.writestr('model/data.pkl', pickled)
    for number, data in enumerate(storages):
      archive.writestr(f'model/data/{number}', data)
    archive.writestr('model/version', '3\n')
  return path


def _tensor(count=2, shape=(2,), strides=(1,), offset=0, kind='FloatStorage'):
  """Opcodes (protocol 0 to 2) of a tensor on storage 0."""

  def tuple_of(numbers):
    return b'(' + b''.join(b'\x8a\x08' + struct.pack('<q', n) for n in numbers)

  storage = b'(X\x07\0\0\0storagectorch\n' + kind.encode()
  storage += b'\nX\x01\0\0\x000X\x03\0\0\0cpu'
  storage += b'\x8a\x08' + struct.pack('<q', count) + b'tQ'
  return (
    _TENSOR.encode()
    + b'('
    + storage
    + b'\x8a\x08'
    + struct.pack('<q', offset)
    + tuple_of(shape)
    + b't'
    + tuple_of(strides)
    + b't\x89ccollections\nOrderedDict\n)RtR.'
  )


def _assert_refused(path, part='must'):
  with pytest.raises(ValueError, match=part) as error:
    torch_file.read(path)
  text = str(error.value)
  assert text.startswith(f'torch file {path} must ')
  assert '\n' not in text
  assert len(text) < 600


def test_what_was_written_is_read(tmp_path):
  shared = np.arange(6, dtype=np.float32).reshape(2, 3)
  data = collections.OrderedDict(
    tensors={
      'turned': shared.T,
      'half': np.array([1, -2], np.float16),
      'brain': np.asarray(jnp.asarray([1.5, -0.0], jnp.bfloat16)),
      'empty': np.zeros((0, 3)),
      'scalar': np.array(7),
      'flags': np.array([True, False]),
      'jax': jnp.arange(3),
    },
    plain=[None, True, 3, -(2**70), 2.5, 'é', (1, [2]), {0.5: 'x', 3: ()}],
    many=list(range(2500)),
    shared=[shared, shared],
  )
  path = tmp_path / 'data.pt'
  torch_file.write(path, data)
  read = torch_file.read(path)
  for key in ('plain', 'many'):
    assert read[key] == data[key]
  for name, array in data['tensors'].items():
    found = read['tensors'][name]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
  assert np.signbit(read['tensors']['brain'][1])
  assert np.shares_memory(*read['shared'])
  with pytest.raises(ValueError, match='read-only'):
    read['shared'][0][0, 0] = 1
  first = path.read_bytes()
  torch_file.write(path, data)
  assert path.read_bytes() == first
  with zipfile.ZipFile(path) as archive:
    assert archive.testzip() is None


def test_torch_reads_what_was_written_and_the_other_way_round(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'data.pt'
  matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
  plain = {'list': [1, -(2**40), 0.5, None, True, 'é', (1,)], 'deep': {'x': {}}}
  brain = np.asarray(jnp.ones(2, jnp.bfloat16))
  torch_file.write(path, {'m': matrix.T, 'brain': brain, **plain})
  for mapped in (False, True):
    loaded = torch.load(path, weights_only=True, mmap=mapped)
    np.testing.assert_array_equal(loaded['m'].numpy(), matrix.T)
    assert loaded['brain'].dtype == torch.bfloat16
    assert {k: loaded[k] for k in plain} == plain
  base = torch.arange(24.0).reshape(4, 6)
  saved = {
    'turned': base.t(),
    'part': base[1:3, ::2],
    'parameter': torch.nn.Parameter(base),
    'brain': base.bfloat16(),
    'size': base.shape,
    'dtype': torch.float16,
  }
  torch.save(saved, path)
  read = torch_file.read(path)
  for name in ('turned', 'part', 'parameter'):
    array = saved[name].detach().numpy()
    np.testing.assert_array_equal(read[name], array)
    assert read[name].strides == array.strides
  assert read['brain'].dtype == jnp.bfloat16
  assert read['size'] == (4, 6)
  assert read['dtype'] == np.float16
  module = torch.nn.Linear(2, 3)
  torch.save(module.state_dict(), path)
  assert list(torch_file.read(path)) == ['weight', 'bias']
  torch.save(base, path, _use_new_zipfile_serialization=False)
  _assert_refused(path, 'legacy')
  torch.save({'wide': torch.zeros(1).expand(10**9)}, path)
  _assert_refused(path, 'within their storages')


class _Evil:
  """Reduces to a call."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


class _Stateful:
  def __setstate__(self, state):
    raise AssertionError('executed')

  def __getstate__(self):
    return {'x': 1}


def _touch(mark):
  return f"open('{mark}', 'w')"


def _malicious(mark):
  system = _Evil(os.system, f'touch {mark}')
  walk = f'().__class__.__base__.__subclasses__() and {_touch(mark)}'
  yield from (
    pickle.dumps(data, protocol)
    for protocol in (0, 1, 2, 4)
    for data in (
      system,
      _Evil(eval, _touch(mark)),
      _Evil(eval, walk),
      _Evil(exec, _touch(mark)),
      {'weight': [system, (system,)]},
      _Evil(getattr, system, 'x'),
      _Stateful(),
    )
  )
  command = f'touch {mark}'.encode()
  text = b'X' + struct.pack('<I', len(command)) + command
  yield b"(S'" + command + b"'\nios\nsystem\n."
  yield b'(cos\nsystem\n' + text + b'o.'
  yield b'\x80\x02cos\nsystem\n' + text + b'\x85R.'
  yield b'\x80\x04\x8c\x05posix\x8c\x06system\x93' + text + b'\x85R.'
  yield b'\x80\x02cbuiltins\nobject\n)\x81}b.'
  yield b'\x80\x02\x82\x01.\x83\x01\0.\x84\x01\0\0\0.'
  yield b'\x80\x02ctorch._utils\nos.system\n' + text + b'\x85R.'
  yield b'\x80\x04\x8c\x0ctorch._utils\x8c\x09os.system\x93' + text + b'\x85R.'
  # Names that are admitted, but not as data, targets or arguments of calls.
  yield b'\x80\x02' + _TENSOR.encode() + b'.'
  yield b'\x80\x02ctorch\nFloatStorage\n.'
  yield b'\x80\x02ctorch\nFloatStorage\n)R.'
  yield b'\x80\x02ctorch\nfloat32\n' + text + b'\x85R.'
  yield b'\x80\x02' + _TENSOR.encode() + b'}X\x01\0\0\0xNsb.'
  yield b'\x80\x02' + _TENSOR.encode() + text + b'\x85R.'
  yield b'\x80\x02ccollections\nOrderedDict\nK\x01\x85R.'
  yield b'\x80\x02X\x01\0\0\0xQ.'


def test_malicious_pickles_are_refused_and_nothing_is_executed(tmp_path):
  mark = tmp_path / 'executed'
  count = 0
  for pickled in _malicious(mark):
    _assert_refused(_archive(tmp_path / 'evil.pt', pickled))
    count += 1
  assert count > 40
  assert not mark.exists()


def _bombs():
  yield (
    'laugh',
    b'\x80\x02]'
    + b''.join(
      bytes([ord('q'), n])
      + b']'
      + bytes([ord('h'), n])
      + b'a'
      + bytes([ord('h'), n])
      + b'a'
      for n in range(90)
    )
    + b'.',
  )
  yield 'laugh', b'\x80\x02]' + b'\x94]h\0ah\0a' * 3 + b'(' * 2000 + b'.'
  yield 'itself', b'\x80\x02]q\0h\0a.'
  yield 'deep', b'\x80\x02' + b']' * 5000 + b'a' * 4999 + b'.'
  yield 'marks', b'\x80\x02' + b'(' * 10**5
  yield 'pile', b'\x80\x02' + b'}' * 10**6
  yield 'memo', b'\x80\x02Nr\xff\xff\xff\xff.' + b'\x80\x02Nj\xff\xff\xff\xff.'
  yield 'memo', b'\x80\x02j\xff\xff\xff\xff.'
  yield 'text', b'\x80\x02X\xff\xff\xff\xffabc.'
  yield 'text', b'\x80\x04\x8d' + b'\xff' * 8 + b'abc.'
  yield 'bytes', b'\x80\x04\x8e' + b'\0\0\0\0\1\0\0\0' + b'abc.'
  yield 'long', b'\x80\x02\x8b\xff\xff\xff\x7fabc.'
  yield 'digits', b'I' + b'9' * 10**5 + b'\n.'
  yield 'line', b'c' + b'a' * 10**6
  yield 'hashes', b'\x80\x02)q\0' + b'h\0h\0\x86q\0' * 90 + b'}h\0Ns.'


def test_bombs_are_refused_in_bounded_memory(tmp_path, monkeypatch):
  # Types are checked in tests, at every step of the machine.
  monkeypatch.setattr(torch_unpickler, '_MOST_PILED', 2000)
  for number, (_, pickled) in enumerate(_bombs()):
    path = _archive(tmp_path / f'{number}.pt', pickled)
    if pickled.startswith(b'\x80\x02Nr'):  # large indices alone do no harm
      assert torch_file.read(path) is None
      continue
    tracemalloc.start()
    try:
      _assert_refused(path)
      assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
      tracemalloc.stop()


@pytest.mark.parametrize(
  ('options', 'part'),
  [
    ({'count': 2_500_000_000}, '2,500,000,000 elements'),
    ({'count': 3}, 'declares'),
    ({'kind': 'DoubleStorage'}, 'float64'),
    ({'kind': 'QInt8Storage'}, 'QInt8Storage'),
    ({'shape': (3,)}, 'within their storages'),
    ({'offset': 1}, 'within their storages'),
    ({'shape': (2, 1), 'strides': (2, 1)}, 'within their storages'),
    ({'shape': (10**9,), 'strides': (0,)}, 'within their storages'),
    ({'shape': (2**40, 2**40), 'strides': (0, 0)}, 'within their storages'),
    ({'shape': (0, 2**47, 2**47), 'strides': (1, 1, 1)}, 'fit in memory'),
    ({'shape': (-2,)}, 'natural numbers'),
    ({'strides': (-1,)}, 'natural numbers'),
    ({'offset': -1}, 'natural numbers'),
    ({'strides': (1, 1)}, 'axes'),
    ({'shape': (1,) * 40, 'strides': (1,) * 40}, 'axes'),
  ],
)
def test_wrong_sizes_of_tensors_are_refused(tmp_path, options, part):
  pickled = b'\x80\x02' + _tensor(**options)
  path = _archive(tmp_path / 'a.pt', pickled, [bytes(8)])
  tracemalloc.start()
  try:
    _assert_refused(path, part)
    assert tracemalloc.get_traced_memory()[1] < 1e6
  finally:
    tracemalloc.stop()
  assert torch_file.read(
    _archive(path, b'\x80\x02' + _tensor(), [bytes(8)])
  ).shape == (2,)


def _declare(data, size):
  """Changes the sizes of data/0 in the directory of an archive."""
  entry = data.rindex(b'model/data/0') - 46
  assert data[entry : entry + 4] == b'PK\1\2'
  sizes = struct.pack('<II', size, size)
  return data[: entry + 20] + sizes + data[entry + 28 :]


def test_damaged_archives_are_refused(tmp_path):
  path = tmp_path / 'a.pt'
  whole = _archive(path, b'\x80\x02' + _tensor(), [bytes(8)]).read_bytes()
  for size in range(0, len(whole), 7):
    path.write_bytes(whole[:size])
    _assert_refused(path)
  path.write_bytes(_declare(whole, 4_000_000_000))
  _assert_refused(path, '4,000,000,000 bytes')
  path.write_bytes(_declare(whole, 200))
  _assert_refused(path)
  _archive(path, b'\x80\x02N.', compression=zipfile.ZIP_DEFLATED)
  _assert_refused(path, 'compressed')
  path.write_bytes(pickle.dumps({'x': 1}))
  _assert_refused(path, 'zip archive')


def test_members_and_keys_are_there_once(tmp_path):
  path = _archive(tmp_path / 'a.pt', b'\x80\x02N.')
  with (
    pytest.warns(UserWarning, match='Duplicate'),
    zipfile.ZipFile(path, 'a') as archive,
  ):
    archive.writestr('model/data.pkl', b'\x80\x02N.')
  _assert_refused(path, 'data.pkl')
  for name, part in (('other/x', 'one directory'), ('model/constants.pkl', '')):
    _archive(path, b'\x80\x02N.')
    with zipfile.ZipFile(path, 'a') as archive:
      archive.writestr(name, b'')
    _assert_refused(path, part)
  pair = b'X\x01\0\0\0aN'
  _assert_refused(_archive(path, b'\x80\x02}(' + pair * 2 + b'u.'), "'a' twice")
  ordered = b'\x80\x02ccollections\nOrderedDict\n](](' + pair + b'e](' + pair
  _assert_refused(_archive(path, ordered + b'ee\x85R.'), "'a' twice")
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('model/data.pkl', b'\x80\x02N.')
    archive.writestr('model/byteorder', b'big')
  _assert_refused(path, 'little-endian')


@pytest.mark.parametrize(
  'value',
  [{1, 2}, b'x', np.array(['x']), np.zeros(2, complex), object(), 1j],
)
def test_what_torch_would_not_read_is_not_written(tmp_path, value):
  path = tmp_path / 'a.pt'
  torch_file.write(path, [1])
  with pytest.raises(ValueError, match='data for torch must') as error:
    torch_file.write(path, {'x': [value]})
  assert '\n' not in str(error.value)
  assert torch_file.read(path) == [1]
  assert [p.name for p in tmp_path.iterdir()] == ['a.pt']


def test_writing_holds_no_second_copy(tmp_path):
  array = np.ones((4096, 4096), np.float32)
  tracemalloc.start()
  try:
    torch_file.write(tmp_path / 'a.pt', {'a': array, 'turned': array[:-1].T})
    assert tracemalloc.get_traced_memory()[1] < 0.6 * array.nbytes
  finally:
    tracemalloc.stop()
  read = torch_file.read(tmp_path / 'a.pt')
  assert read['turned'].shape == (4096, 4095)
