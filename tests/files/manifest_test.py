"""Nothing is replaced or deleted that is not in the list."""

import json
import os

import pytest

from sparse_interp.files import manifest, whole_file


@pytest.fixture
def listed(tmp_path):
  return manifest.Manifest(tmp_path)


def names(directory):
  return json.loads((directory / manifest.NAME).read_text())['names']


def test_a_name_is_on_disk_before_its_file(tmp_path, listed):
  listed.record(tmp_path / 'data' / 'train.npy')
  assert names(tmp_path) == ['data/', 'data/train.npy']
  assert not (tmp_path / 'data').exists()
  assert manifest.Manifest(tmp_path).owns(tmp_path / 'data' / 'train.npy')


def test_files_and_directories_of_others_are_neither_replaced_nor_deleted(
  tmp_path, listed
):
  (tmp_path / 'data').mkdir()
  (tmp_path / 'data' / 'mine.txt').write_text('keep')
  (tmp_path / 'link').symlink_to('nowhere')
  for name in ('data/mine.txt', 'link', 'data'):
    with pytest.raises(ValueError, match='no run wrote; move it'):
      listed.record(tmp_path / name)
  listed.record(tmp_path / 'data' / 'ours.txt')
  (tmp_path / 'data' / 'ours.txt').touch()
  listed.remove()
  left = sorted(p.name for p in tmp_path.rglob('*'))
  assert left == ['data', 'link', 'mine.txt']


def test_an_empty_directory_of_others_stays(tmp_path, listed):
  (tmp_path / 'circuits').mkdir()
  listed.record(tmp_path / 'circuits' / 'a' / 'circuit.json')
  (tmp_path / 'circuits' / 'a').mkdir()
  listed.remove()
  assert [p.name for p in tmp_path.rglob('*')] == ['circuits']


def test_what_is_elsewhere_does_not_matter(tmp_path, listed):
  other = tmp_path / '..' / 'other.txt'
  listed.record(other)
  assert not listed.owns(other)
  assert not list(tmp_path.iterdir())


def test_through_a_link_nothing_is_deleted(tmp_path):
  root, other = tmp_path / 'root', tmp_path / 'other'
  root.mkdir()
  other.mkdir()
  listed = manifest.Manifest(root)
  listed.record(root / 'data' / 'x.npy')
  listed.record(root / 'checkpoints', directory=True)
  part = whole_file.part_name('x.npy')
  for name in ('x.npy', part, '7.orbax-checkpoint-tmp'):
    (other / name).touch()
  (root / 'data').symlink_to(other)
  (root / 'checkpoints').symlink_to(other)
  listed.sweep()
  listed.remove()
  assert len(list(other.iterdir())) == 3


def test_leftovers_of_killed_runs_go_and_those_of_others_stay(tmp_path, listed):
  listed.record(tmp_path / 'data' / 'x.npy')
  listed.record(tmp_path / 'checkpoints', directory=True)
  listed.record(tmp_path / manifest.SCRATCH / 'model.bin')
  part = whole_file.part_name
  ours = [
    f'data/{part("x.npy")}',
    part(manifest.NAME),
    'checkpoints/30.orbax-checkpoint-tmp/params/x',
    'checkpoints/31.orbax-checkpoint-tmp-1700000000/x',
    f'{manifest.SCRATCH}/model.bin',
  ]
  others = [
    f'data/{part("y.npy")}',
    f'mine/{part("x.npy")}',
    'data/.x.npy.part',
    'checkpoints/30/params/x',
    'checkpoints/mine.orbax-checkpoint-tmp/x',
    'data/x.npy',
  ]
  for name in ours + others:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('x')
  listed.sweep()
  left = {
    p.relative_to(tmp_path).as_posix()
    for p in tmp_path.rglob('*')
    if p.is_file()
  }
  assert left == {*others, manifest.NAME}


def test_a_result_is_remembered(tmp_path, listed):
  listed.record(tmp_path / 'x')
  assert not manifest.Manifest(tmp_path).settled
  listed.settle()
  assert manifest.Manifest(tmp_path).settled


def test_logs_of_other_libraries_go_with_the_list(tmp_path, listed):
  listed.record(tmp_path / 'tensorboard', directory=True)
  (tmp_path / 'tensorboard').mkdir()
  (tmp_path / 'tensorboard' / 'events.out.tfevents.1.host').touch()
  listed.sweep()
  assert list((tmp_path / 'tensorboard').iterdir())
  listed.remove()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['/etc/passwd', '../x', 'a/../../x', '', 7])
def test_a_list_that_leads_elsewhere_is_refused(tmp_path, listed, name):
  listed.record(tmp_path / 'x')
  value = json.loads((tmp_path / manifest.NAME).read_text())
  manifest.sealed.write_json(
    tmp_path / manifest.NAME, value | {'names': [name]}
  )
  with pytest.raises(ValueError, match=r'manifest\.json must be the list'):
    manifest.Manifest(tmp_path)


def test_a_damaged_list_is_named(tmp_path, listed):
  listed.record(tmp_path / 'x')
  text = (tmp_path / manifest.NAME).read_text()
  (tmp_path / manifest.NAME).write_text(text.replace('"x"', '"y"'))
  with pytest.raises(ValueError, match=r'manifest\.json must be as it was'):
    manifest.Manifest(tmp_path)


def test_a_full_disk_keeps_the_file_from_being_made(
  tmp_path, listed, monkeypatch
):
  def full(path, value):
    raise OSError('No space left on device')

  monkeypatch.setattr(manifest.sealed, 'write_json', full)
  with whole_file.watched_by(listed.record), pytest.raises(OSError):
    with whole_file.writing(tmp_path / 'x'):
      raise AssertionError
  assert not os.listdir(tmp_path)
  assert not listed.owns(tmp_path / 'x')
