"""Large buffers that stay with the process instead of going back and forth.

XLA's CPU client allocates the temporaries of a step anew each time. They are
large, so glibc maps them from the kernel and unmaps them after, and the kernel
clears every page again: 130 thousand page faults and a third of the processor
time of a step at the laptop size. Kept in one arena, they are cleared once.
"""

import ctypes
import sys

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8


def keep_freed_memory() -> bool:
  """Asks glibc to keep freed memory; call before the first allocation by XLA.

  Returns:
    Whether the C library understood; others are left as they are.
  """
  if not sys.platform.startswith('linux'):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return False
  one_arena = mallopt(_ARENA_MAX, 1)
  no_mapping = mallopt(_MMAP_THRESHOLD, 1 << 30)
  no_trimming = mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
  return bool(one_arena and no_mapping and no_trimming)
