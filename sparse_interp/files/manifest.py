"""The names that runs wrote into a workdir: what is ours, and nothing else.

`manifest.json` lists every file and directory before it is made. Nothing that
it does not list is ever replaced or deleted; what others put beside it stays.
"""

import contextlib
import os
import pathlib
import re
import shutil
import threading

from sparse_interp.files import sealed, whole_file

NAME = 'manifest.json'
# A directory for what is needed only while a run is at it.
SCRATCH = '.scratch'
_KIND = 'sparse_interp workdir'

# Directories that other libraries write into: what they leave when killed, and
# what else belongs to them until there is a result.
_UNFINISHED = {
  'checkpoints/': re.compile(r'\d+\.orbax-checkpoint-tmp[.\d-]*'),
}
_LOGS = {'tensorboard/': re.compile(r'events\.out\.tfevents\..*')}


class Manifest:
  """The manifest of one directory, for the process that holds its lock.

  Attributes:
    settled: whether there is a result that must not be taken back.
  """

  def __init__(self, directory: pathlib.Path):
    """Reads the manifest of a directory, or begins an empty one.

    Raises:
      ValueError: there is one that no run wrote, or it is damaged.
    """
    self._root = directory
    self._mutex = threading.Lock()
    self._names: dict[str, None] = {}
    self.settled = False
    if not os.path.lexists(directory / NAME):
      return
    value = sealed.read_json(directory / NAME, 'choose another workdir')
    names = value.get('names')
    ours = value.get('kind') == _KIND and isinstance(names, list)
    if not ours or not all(map(_stays_below, names)):
      raise ValueError(
        f'{directory / NAME} must be the list of what runs wrote there, got '
        'something else; choose another workdir.'
      )
    self._names = dict.fromkeys(names)
    self.settled = bool(value['settled'])

  def owns(self, path: pathlib.Path) -> bool:
    """Whether a run wrote this file or directory, or began to."""
    name = self._name_of(path)
    return name is not None and not {name, f'{name}/'}.isdisjoint(self._names)

  def record(self, path: pathlib.Path, directory: bool = False) -> None:
    """Lists a file or a directory that is about to be made or replaced.

    Args:
      path: of it; what is not below the root of the manifest does not matter.
      directory: whether it will be a directory, with all that is in it.

    Raises:
      ValueError: it is there, and no run wrote it.
      OSError: the list cannot be written.
    """
    name = self._name_of(path)
    if name in (None, NAME):
      return
    with self._mutex:
      new = [
        f'{parent}/'
        for parent in reversed(pathlib.PurePosixPath(name).parents[:-1])
        if not os.path.lexists(self._root / parent)
      ]
      new.append(f'{name}/' if directory else name)
      new = [one for one in new if one not in self._names]
      if not new:
        return
      if new[-1].rstrip('/') == name and os.path.lexists(self._root / name):
        raise ValueError(
          f'workdir must have room for {name}, got {self._root / name}, which '
          'no run wrote; move it elsewhere and run again.'
        )
      self._write(self._names | dict.fromkeys(new), self.settled)

  def settle(self) -> None:
    """Says that there is a result: from now on nothing is taken back."""
    if not self.settled:
      self._write(self._names, True)

  def sweep(self) -> None:
    """Deletes what killed runs left half written, among our names only."""
    for place in {(self._root / name).parent for name in [NAME, *self._names]}:
      for path in _entries(place) if self._is_inside(place) else ():
        whole = whole_file.whole_name(path.name)
        if whole and (whole == NAME or self.owns(path.with_name(whole))):
          path.unlink(missing_ok=True)
    self._delete_of_libraries(_UNFINISHED)
    self.remove_below(self._root / SCRATCH)

  def remove(self) -> None:
    """Deletes all that is listed and the list itself; directories if empty."""
    self.sweep()
    self._delete_of_libraries(_LOGS)
    # What is inside a directory comes before it.
    for name in sorted(self._names, reverse=True):
      self._delete(self._root / name)
    (self._root / NAME).unlink(missing_ok=True)

  def remove_below(self, directory: pathlib.Path) -> None:
    """Deletes what is listed of one directory, and the directory if empty."""
    prefix = f'{self._name_of(directory)}/'
    for name in sorted(self._names, reverse=True):
      if name.startswith(prefix):
        self._delete(self._root / name)

  def _delete(self, path: pathlib.Path) -> None:
    """Deletes a file, or a directory if it is empty, unless it is elsewhere."""
    if not self._is_inside(path.parent):
      return
    with contextlib.suppress(OSError):  # missing, or not empty
      if path.is_dir() and not path.is_symlink():
        path.rmdir()
      else:
        path.unlink()

  def _delete_of_libraries(self, kinds: dict[str, re.Pattern]) -> None:
    for directory, pattern in kinds.items():
      if directory in self._names and self._is_inside(self._root / directory):
        for path in _entries(self._root / directory):
          if pattern.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
          elif pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)

  def _is_inside(self, directory: pathlib.Path) -> bool:
    """Whether links lead from a directory of ours to elsewhere."""
    return directory.resolve().is_relative_to(self._root.resolve())

  def _name_of(self, path: pathlib.Path) -> str | None:
    """A path as the list has it; None for one that is elsewhere."""
    path = pathlib.Path(os.path.abspath(path))
    for parent in path.parents:
      if parent.resolve() == self._root.resolve():
        return path.relative_to(parent).as_posix()
    return None

  def _write(self, names: dict[str, None], settled: bool) -> None:
    value = {'kind': _KIND, 'settled': settled, 'names': sorted(names)}
    sealed.write_json(self._root / NAME, value)
    self._names, self.settled = names, settled


def is_ours(name: str) -> bool:
  """Whether a file of this name at the top of a directory is a manifest's."""
  return name == NAME or whole_file.whole_name(name) == NAME


def _stays_below(name: object) -> bool:
  path = pathlib.PurePosixPath(name) if isinstance(name, str) else None
  return bool(path and path.parts) and not (
    path.is_absolute() or '..' in path.parts
  )


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
  try:
    return list(directory.iterdir())
  except OSError:  # missing, or no directory any more
    return []
