"""Limits on memory are found, whoever sets them."""

import subprocess
import sys

import pytest

from sparse_interp.training import free_memory

_LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from sparse_interp.training import free_memory
print(free_memory.of_machine())
"""


def test_a_limit_on_address_space_is_what_is_left_of_it():
  found = subprocess.run(
    [sys.executable, '-c', _LIMITED],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  assert 2**30 < int(found.stdout) < 3 * 2**30


def test_no_more_is_free_than_the_machine_has():
  with open('/proc/meminfo') as file:
    total = int(file.readline().split()[1]) * 1024
  assert 0 < free_memory.of_machine() < total
  assert 0 < free_memory.of_devices() < total


@pytest.mark.parametrize(
  ('line', 'group', 'limit', 'used'),
  [
    ('0::/a/b', 'a', 'memory.max', 'memory.current'),
    ('0::/a/b', 'a/b', 'memory.max', 'memory.current'),
    # In a container, the path is that of the host, and the group is the root.
    ('0::/elsewhere', '', 'memory.max', 'memory.current'),
    (
      '4:memory:/a/b',
      'memory/a',
      'memory.limit_in_bytes',
      'memory.usage_in_bytes',
    ),
    (
      '7:cpu,memory:/gone',
      'memory',
      'memory.limit_in_bytes',
      'memory.usage_in_bytes',
    ),
  ],
)
def test_limits_of_control_groups_are_found(tmp_path, line, group, limit, used):
  own = tmp_path / 'own'
  own.write_text(f'9:cpuset:/\n{line}\n')
  root = tmp_path / 'root'
  (root / 'a' / 'b').mkdir(parents=True)
  (root / 'memory' / 'a' / 'b').mkdir(parents=True)
  place = root / group
  (place / limit).write_text('5000\n')
  (place / used).write_text('3000\n')
  (place / 'memory.stat').write_text('anon 1000\ninactive_file 700\n')
  find = free_memory._of_control_groups
  assert find(str(root), str(own)) == [2700]
  (place / limit).write_text('max\n')
  assert find(str(root), str(own)) == []
  (place / limit).write_text('9223372036854771712\n')
  assert find(str(root), str(own)) == []


def test_devices_that_count_their_bytes_are_believed(monkeypatch):
  class Device:
    def __init__(self, used):
      self._used = used

    def memory_stats(self):
      return {'bytes_limit': 1000, 'bytes_in_use': self._used}

  monkeypatch.setattr('jax.default_backend', lambda: 'gpu')
  monkeypatch.setattr('jax.local_devices', lambda: [Device(100), Device(300)])
  assert free_memory.of_devices() == 700
