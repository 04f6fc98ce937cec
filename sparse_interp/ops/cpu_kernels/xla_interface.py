"""The version of XLA's foreign function interface, for kernels on CPUs.

The bridge in `native` reads C structures word by word. A minor version of the
interface adds fields at their ends; a major one may move them, and reading them
as before would end the process.
"""

import pathlib
import re

import jax

# The major version whose structures `native` knows.
KNOWN = 0


class UnknownVersionError(Exception):
  """The interface is of a version that the bridge was not written for."""


def version() -> tuple[int, int] | None:
  """(major, minor) of the XLA at hand; None if it does not say."""
  header = pathlib.Path(jax.ffi.include_dir(), 'xla/ffi/api/c_api.h')
  try:
    text = header.read_text()
  except OSError:
    return None
  numbers = [
    re.search(rf'#define XLA_FFI_API_{part} (\d+)', text)
    for part in ('MAJOR', 'MINOR')
  ]
  if None in numbers:
    return None
  return tuple(int(number[1]) for number in numbers)


def check() -> None:
  """Raises UnknownVersionError where the bridge must not be used."""
  found = version()
  if found is None:
    raise UnknownVersionError("XLA's interface does not state its version")
  if found[0] != KNOWN:
    raise UnknownVersionError(
      f"XLA's interface is of version {found[0]}.{found[1]}, and the kernels "
      f'know {KNOWN}.x'
    )
