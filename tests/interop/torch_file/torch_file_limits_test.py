"""Hostile sizes in files of torch.save are refused, and quickly."""

import os
import struct
import time
import zipfile

import numpy as np
import pytest

from sparse_interp.interop.torch_file import torch_file

_PRIME = 2**61 - 1  # whole numbers that differ by it have one hash


def _archive(path, pickled, storage=b''):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('model/data.pkl', pickled)
    archive.writestr('model/data/0', storage)
  return path


def _refused(path, part):
  begun = time.monotonic()
  with pytest.raises(ValueError, match=r'torch file .* must') as error:
    torch_file.read(path)
  assert time.monotonic() - begun < 30
  assert '\n' not in str(error.value)
  assert part in str(error.value)


def _long(number):
  return b'\x8a\x0b' + number.to_bytes(11, 'little', signed=True)


@pytest.mark.slow
def test_keys_whose_hashes_collide_are_refused(tmp_path):
  keys = b''.join(_long(i * _PRIME) + b'N' for i in range(30_000))
  path = _archive(tmp_path / 'a.pt', b'\x80\x02}(' + keys + b'u.')
  _refused(path, 'numbers below 2**60')
  pairs = b''.join(_long(i) + _long(i * _PRIME) + b'\x86N' for i in range(99))
  _refused(_archive(path, b'\x80\x02}(' + pairs + b'u.'), '2**60')
  pairs = b''.join(_long(i) + b'K\0\x86N' for i in range(10_001))
  _refused(_archive(path, b'\x80\x02}(' + pairs + b'u.'), '10,000 tuples')


def test_keys_that_are_one_to_python_are_refused(tmp_path):
  for first, second in ((b'K\1', b'\x88'), (b'K\0', b'G' + bytes(8))):
    pickled = b'\x80\x02}(' + first + b'N' + second + b'Nu.'
    _refused(_archive(tmp_path / 'a.pt', pickled), 'every key once')


def test_numbers_as_keys_come_back(tmp_path):
  data = {'a': {i: i for i in range(5000)}, 'b': {(0, 'x'): 1, (-1, 'x'): 2}}
  torch_file.write(tmp_path / 'a.pt', data)
  assert torch_file.read(tmp_path / 'a.pt') == data


def test_a_large_pickle_is_refused_before_it_is_run(tmp_path):
  pickled = b'\x80\x02]' + b']a' * (33 * 2**20) + b'.'
  _refused(_archive(tmp_path / 'a.pt', pickled), 'a data.pkl of at most')


def test_one_storage_under_many_names_is_refused(tmp_path):
  storage = (
    b'(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu'
    b'\x8a\x08' + struct.pack('<q', 2**18) + b'tQ'
  )
  tensor = (
    b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + b'K\0'
    b'\x8a\x04' + struct.pack('<i', 2**18) + b'\x85K\1\x85\x89'
    b'ccollections\nOrderedDict\n)RtRq\0'
  )
  one = b'\x80\x02](' + tensor + b'%se.'
  path = tmp_path / 'a.pt'
  read = torch_file.read(_archive(path, one % (b'h\0' * 3), bytes(2**20)))
  assert [array.shape for array in read] == [(2**18,)] * 4
  _refused(
    _archive(path, one % (b'h\0' * 999), bytes(2**20)), 'the bytes of its'
  )


def test_what_is_no_file_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'pipe.pt')
  (tmp_path / 'zero.pt').symlink_to('/dev/zero')
  for name, what in (('pipe.pt', 'a pipe'), ('zero.pt', 'a device')):
    with pytest.raises(ValueError, match=f'{name} must be a file, got {what}'):
      torch_file.read(tmp_path / name)


def test_tied_tensors_are_no_bomb(tmp_path):
  tied = np.ones((64, 64), np.float32)
  torch_file.write(tmp_path / 'a.pt', {'wte': tied, 'lm_head': tied})
  assert len(torch_file.read(tmp_path / 'a.pt')) == 2
