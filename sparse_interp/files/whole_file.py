"""Files that are whole or not there: written beside their place, then moved."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields another name to write to; it becomes `path` if nothing is raised.

  Args:
    path: of the file. Its directory is made if missing; a file that stands
      there is replaced in one step, or left as it is.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    yield part
    with part.open('rb') as file:
      os.fsync(file.fileno())
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
