"""Machine code of the CPU kernels, kept from run to run.

Numba takes seconds for each kernel, XLA asks for several before the first step,
and every process would compile them anew. Numba's own cache would keep a kernel
after a function that it calls has changed; here any change to the directory of
the kernels, to the compiler or to the machine makes another name. Files are in
`$XDG_CACHE_HOME/sparse_interp`, or else in `~/.cache/sparse_interp`.
"""

import contextlib
import hashlib
import inspect
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite
import numba
from numba.core import codegen
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from sparse_interp.ops.cpu_kernels import outcomes

_HASH_BYTES = 32  # in front of what is kept
_SECONDS_KEPT = 30 * 24 * 3600  # those of other versions, too


class Loaded(NamedTuple):
  """Machine code that is in memory as long as this is.

  Attributes:
    address: of the function.
    owner: of the memory.
    key: of the source, the compiler and the machine it was made by and for.
  """

  address: int
  owner: Any
  key: str


def load(
  name: str, source: Callable[..., Any], entry: Callable[[int], int]
) -> Loaded:
  """Compiles a function, in seconds, or takes what an earlier process compiled.

  Args:
    name: of the kernel, for the name of the file.
    source: function whose file counts as source, beside those of this
      directory.
    entry: from one address to one word, of which Numba knows how to compile it.
  """
  # What kernels call to get memory; else only a compilation sets it up.
  rtsys.initialize(cpu_target.target_context)
  # An engine of its own: names inside one kernel may be those of another.
  engine = codegen.JITCPUCodegen(name)
  key = _key(name, source, engine.magic_tuple())
  path = outcomes.directory() / f'{name}-{key}'
  # No two functions of a process have one name, wherever they were compiled.
  entry.__name__ = entry.__qualname__ = f'kernel_{key}'
  kept = _read(path)
  if kept is None:
    kept = _compile(entry)
    _write(path, kept)
  symbol, *code = kept
  library = engine.unserialize_library((name, 'object', code))
  address = library.get_pointer_to_function(symbol.decode())
  return Loaded(address, (engine, library), key)


def name_in_c(name: str) -> str:
  """Of the function for C that Numba makes of one that it calls `name`."""
  return f'cfunc.{name}'


def _key(name, source, machine):
  digest = hashlib.sha256()
  here = pathlib.Path(__file__).parents[1]
  for path in [*sorted(here.rglob('*.py')), inspect.getsourcefile(source)]:
    digest.update(hashlib.sha256(pathlib.Path(path).read_bytes()).digest())
  settings = sorted(
    item for item in os.environ.items() if item[0].startswith('NUMBA_')
  )
  versions = numba.__version__, llvmlite.__version__
  digest.update(repr((name, machine, versions, settings)).encode())
  return digest.hexdigest()[:32]


def _compile(entry) -> list[bytes]:
  """[symbol, object code, bitcode]."""
  compiled = numba.cfunc('int64(int64)')(entry)
  _, _, (code, bitcode) = compiled._library.serialize_using_object_code()
  return [compiled.native_name.encode(), code, bitcode]


def _write(path: pathlib.Path, parts: list[bytes]) -> None:
  """Keeps it with its hash; where nothing can be written, nothing is kept."""
  content = b''.join(len(part).to_bytes(8, 'little') + part for part in parts)
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as beside:
      part = pathlib.Path(beside) / path.name
      part.write_bytes(hashlib.sha256(content).digest() + content)
      part.replace(path)
    for other in path.parent.glob(f'{path.name.rpartition("-")[0]}-*'):
      if other.stat().st_mtime < time.time() - _SECONDS_KEPT:
        other.unlink()


def _read(path: pathlib.Path) -> list[bytes] | None:
  """What was kept; None if it is not there, or not as it was written."""
  try:
    content = path.read_bytes()
  except OSError:
    return None
  digest, content = content[:_HASH_BYTES], content[_HASH_BYTES:]
  if hashlib.sha256(content).digest() != digest:
    return None
  parts = []
  while content:
    end = 8 + int.from_bytes(content[:8], 'little')
    parts.append(content[8:end])
    content = content[end:]
  return parts
