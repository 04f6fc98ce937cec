"""What is no file is refused at once, wherever a path leads to it."""

import os
import pathlib
import socket

import pytest

from sparse_interp.files import regular


def test_a_file_and_a_link_to_it_are_opened(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  (tmp_path / 'b').symlink_to('a')
  for name in 'ab':
    with regular.open_file(tmp_path / name) as file:
      assert file.read() == b'abc'
    assert regular.check(tmp_path / name) == 3
    assert regular.read_bytes(tmp_path / name, 3) == b'abc'


def test_what_is_no_file_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'zero').symlink_to('/dev/zero')
  (tmp_path / 'link').symlink_to(tmp_path / 'pipe')
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(tmp_path / 'socket'))
  for path, what in (
    (tmp_path / 'pipe', 'a pipe'),
    (tmp_path / 'link', 'a pipe'),
    (tmp_path / 'zero', 'a device'),
    (tmp_path / 'socket', 'a socket'),
    (pathlib.Path('/dev/null'), 'a device'),
    (tmp_path, 'a directory'),
  ):
    for read in (
      regular.check,
      regular.open_file,
      lambda path: regular.read_bytes(path, 10),
    ):
      with pytest.raises(ValueError, match=f'must be a file, got {what}'):
        read(path)
    assert regular.what_is(path) == what


def test_a_pipe_that_takes_the_place_of_a_file_does_not_hang(
  tmp_path, monkeypatch
):
  os.mkfifo(tmp_path / 'pipe')
  monkeypatch.setattr(regular, 'check', lambda path: 0)
  with pytest.raises(ValueError, match='got a pipe'):
    regular.open_file(tmp_path / 'pipe')


def test_sizes_are_bounded(tmp_path):
  with (tmp_path / 'sparse').open('wb') as file:
    file.truncate(2**40)
  with pytest.raises(ValueError, match='at most 1 MiB, got 1,099,511,627,776'):
    regular.read_bytes(tmp_path / 'sparse', 2**20)
  # It says that it has no bytes, and has some.
  assert regular.check('/proc/self/maps') == 0
  with pytest.raises(ValueError, match='at most'):
    regular.read_bytes('/proc/self/maps', 10)


def test_what_is_missing_is_an_error_of_the_system(tmp_path):
  for read in (regular.check, regular.open_file, regular.what_is):
    with pytest.raises(FileNotFoundError):
      read(tmp_path / 'none')
