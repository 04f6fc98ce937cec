"""Files are whole or not there, and their parts are told from all others."""

import os
import socket

import pytest

from sparse_interp.files import whole_file


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
  path = tmp_path / 'a' / 'x.json'
  with whole_file.writing(path) as part:
    part.write_text('old')
    assert not path.exists()

  def write_half():
    with whole_file.writing(path) as part:
      part.write_text('half')
      raise RuntimeError

  with pytest.raises(RuntimeError):
    write_half()
  assert path.read_text() == 'old'
  assert [p.name for p in path.parent.iterdir()] == ['x.json']


def test_parts_of_two_containers_with_one_process_number_are_two(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(os, 'getpid', lambda: 1)
  with (
    whole_file.writing(tmp_path / 'x') as one,
    whole_file.writing(tmp_path / 'x') as other,
  ):
    assert one != other
    one.write_text('1')
    other.write_text('2')
  assert (tmp_path / 'x').read_text() == '1'
  names = {whole_file.part_name('x') for _ in range(100)}
  assert len(names) == 100


@pytest.mark.parametrize('host', ['a.b.example', 'ünïcode', '', 'x' * 300])
def test_a_part_is_known_by_its_name_whatever_the_host(monkeypatch, host):
  monkeypatch.setattr(socket, 'gethostname', lambda: host)
  part = whole_file.part_name('metrics.jsonl')
  assert whole_file.whole_name(part) == 'metrics.jsonl'
  assert len(part) < 120
  assert part.isascii()


@pytest.mark.parametrize(
  'name',
  [
    'x.part',
    '.x.part',
    '.x.json.123.part',
    '.circuit.json.partial',
    '.x.host-1-0123456789abcde.part',
    'x.host-1-0123456789abcdef.part',
    '.x.host-1-0123456789abcdef.part.bak',
  ],
)
def test_files_of_others_are_no_parts(name):
  assert whole_file.whole_name(name) is None


def test_who_watches_may_refuse_before_anything_is_made(tmp_path):
  def refuse(path):
    raise ValueError(path.name)

  with whole_file.watched_by(refuse), pytest.raises(ValueError, match='x'):
    with whole_file.writing(tmp_path / 'new' / 'x'):
      raise AssertionError
  assert not list(tmp_path.iterdir())
  with whole_file.writing(tmp_path / 'x') as part:
    part.touch()
