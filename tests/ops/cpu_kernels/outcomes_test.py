"""What is kept of trying kernels: the first outcome, whole, for long."""

import concurrent.futures
import os

import pytest

from sparse_interp.ops.cpu_kernels import outcomes
from sparse_interp.ops.cpu_kernels.outcomes import Outcome

PASSED, SLOWER = Outcome('passed', ''), Outcome('slower', 'it is "slow"')


def test_the_first_outcome_stays(tmp_path):
  path = tmp_path / 'k-0.json'
  assert outcomes.read(path) is None
  assert outcomes.keep(path, SLOWER) == SLOWER
  assert outcomes.keep(path, PASSED) == SLOWER
  assert outcomes.read(path) == SLOWER
  assert list(tmp_path.iterdir()) == [path]


def test_all_who_write_at_once_read_the_same(tmp_path):
  path = tmp_path / 'k-0.json'
  given = [PASSED, SLOWER] * 8

  def keep(i):
    return outcomes.keep(path, given[i])

  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    assert len(set(threads.map(keep, range(16)))) == 1


@pytest.mark.parametrize(
  'content', ['', '{', '[]', '{"kind": "passed"}', '{"kind":"x","detail":""}']
)
def test_what_is_damaged_is_written_anew(tmp_path, content):
  path = tmp_path / 'k-0.json'
  path.write_text(content)
  assert outcomes.read(path) is None
  assert outcomes.keep(path, PASSED) == PASSED


def test_what_is_used_is_young(tmp_path):
  path = tmp_path / 'k-0.json'
  outcomes.keep(path, PASSED)
  os.utime(path, (0, 0))
  outcomes.read(path)
  assert path.stat().st_mtime > 0


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path):
  (tmp_path / 'file').touch()
  path = tmp_path / 'file' / 'k-0.json'
  assert not outcomes.can_keep(path)
  assert outcomes.keep(path, PASSED) is None
  assert outcomes.can_keep(tmp_path / 'new' / 'k-0.json')


def test_another_kernel_source_or_setting_is_another_file(monkeypatch):
  paths = {outcomes.path('a', 'key'), outcomes.path('b', 'key')}
  paths.add(outcomes.path('a', 'other'))
  monkeypatch.setenv('XLA_FLAGS', '--xla_some=1')
  paths.add(outcomes.path('a', 'key'))
  version = lambda part: f'{part} 9'  # noqa: E731
  monkeypatch.setattr(outcomes.importlib.metadata, 'version', version)
  paths.add(outcomes.path('a', 'key'))
  assert len(paths) == 5
