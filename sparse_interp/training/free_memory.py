"""How much memory this machine still has for a run, whoever limits it."""

import pathlib
import resource

import jax

# Sizes from here on mean that a control group has no limit.
_NO_LIMIT = 2**60


def of_machine() -> int:
  """Bytes that this process can still take from the host.

  The least of what the kernel calls available, of what the limits on address
  space and data leave (ulimit -v, -d), and of what the control groups that the
  process is in leave. 2**63 - 1 where nothing is known.
  """
  found = [_available(), *_of_limits(), *_of_control_groups()]
  return max(
    0, min((one for one in found if one is not None), default=2**63 - 1)
  )


def of_devices() -> int:
  """Bytes that one device has left for arrays; of the host for CPU devices."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  if jax.default_backend() == 'cpu' or not all(
    'bytes_limit' in s for s in stats
  ):
    return of_machine()
  return min(s['bytes_limit'] - s.get('bytes_in_use', 0) for s in stats)


def _fields(path: str, unit: int = 1) -> dict[str, int]:
  """{name: bytes} of a file with a name and a number a line."""
  try:
    lines = pathlib.Path(path).read_text().splitlines()
  except OSError:
    return {}
  words = [line.replace(':', ' ').split() for line in lines]
  return {
    line[0]: int(line[1]) * unit
    for line in words
    if len(line) > 1 and line[1].isdigit()
  }


def _available() -> int | None:
  return _fields('/proc/meminfo', 1024).get('MemAvailable')


def _of_limits() -> list[int]:
  used = _fields('/proc/self/status', 1024)
  pairs = ((resource.RLIMIT_AS, 'VmSize'), (resource.RLIMIT_DATA, 'VmData'))
  found = []
  for kind, name in pairs:
    limit, _ = resource.getrlimit(kind)
    if limit != resource.RLIM_INFINITY:
      found.append(limit - used.get(name, 0))
  return found


def _of_control_groups(
  root: str = '/sys/fs/cgroup', own: str = '/proc/self/cgroup'
) -> list[int]:
  """What each group between the process and the root leaves, in either version.

  In a container the path is often that of the host, and not to be found: the
  group of the container then is the root itself.
  """
  try:
    lines = pathlib.Path(own).read_text().splitlines()
  except OSError:
    return []
  found = []
  for line in lines:
    _, controllers, path = line.split(':', 2)
    if controllers == '':
      base, names = pathlib.Path(root), ('memory.max', 'memory.current')
    elif 'memory' in controllers.split(','):
      base = pathlib.Path(root, 'memory')
      names = ('memory.limit_in_bytes', 'memory.usage_in_bytes')
    else:
      continue
    group = base / path.lstrip('/')
    while True:
      left = _left_in(group, *names)
      if left is not None:
        found.append(left)
      if group == base or base not in group.parents:
        break
      group = group.parent
  return found


def _left_in(group: pathlib.Path, limit: str, used: str) -> int | None:
  try:
    most = (group / limit).read_text().strip()
    now = int((group / used).read_text())
  except (OSError, ValueError):
    return None
  if not most.isdigit() or int(most) >= _NO_LIMIT:
    return None
  stat = _fields(str(group / 'memory.stat'))
  # Pages of files are given up when memory is asked for.
  files = stat.get('total_inactive_file', stat.get('inactive_file', 0))
  return int(most) - now + files
