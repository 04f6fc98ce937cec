"""The directory of a run: whose it is, what was asked, and what came out.

Every file is replaced in one step, so that a run killed at any moment leaves
either the old content or the new one.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import sparse_interp
from sparse_interp.files import lock, manifest, regular, sealed, whole_file


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes a JSON file in one step."""
  with whole_file.writing(path) as part:
    part.write_text(json.dumps(value, indent=2) + '\n')


# What systems and editors put into directories unasked.
_UNASKED = re.compile(
  r'\.DS_Store|\.ipynb_checkpoints|\.directory|\.localized|\.nfs[0-9a-f]+|'
  r'\.keep|\.gitkeep|lost\+found|Thumbs\.db|desktop\.ini'
)


class Claim:
  """A directory that is a run's own until the context of `claimed` ends.

  Attributes:
    locked: whether the file system keeps other runs out.
  """

  def __init__(
    self, directory: pathlib.Path, listed: manifest.Manifest | None, locked=True
  ):
    self._directory = directory
    self._manifest = listed
    self._thread = threading.get_ident()
    self.locked = locked

  @property
  def is_this_thread(self) -> bool:
    """Whether a run that called another made the claim."""
    return self._thread == threading.get_ident()

  def record(self, name: str, directory: bool = False) -> None:
    """Lists what another library is about to make; see `Manifest.record`."""
    if self._manifest is not None:
      self._manifest.record(self._directory / name, directory)

  def settle(self) -> None:
    """Says that a result follows: what is there is kept from now on."""
    if self._manifest is not None:
      self._manifest.settle()

  @contextlib.contextmanager
  def scratch(self, name: str) -> Iterator[pathlib.Path]:
    """Yields a directory for whole files that go with the context."""
    path = self._directory / manifest.SCRATCH / name
    self.record(f'{manifest.SCRATCH}/{name}', directory=True)
    path.mkdir(parents=True, exist_ok=True)
    try:
      yield path
    finally:
      if self._manifest is not None:
        self._manifest.remove_below(path)
        with contextlib.suppress(OSError):  # another is in use
          path.parent.rmdir()


_open: dict[pathlib.Path, Claim] = {}


@contextlib.contextmanager
def claimed(
  workdir: str | pathlib.Path, config: Mapping[str, Any], leads: bool = True
) -> Iterator[Claim]:
  """Makes a directory a run's own: locks it, writes or compares config.json.

  While the context lasts, every file that goes through `whole_file` is listed
  in the manifest before it is made. Where there is no result yet and something
  is wrong but the disk, all that is listed is deleted at the end, so that the
  user can mend the configuration. A run that calls another shares its claim.

  Args:
    workdir: made if missing.
    config: nested mapping of JSON values (tuples count as lists).
    leads: False in the processes of a run that are not its first; these leave
      lock and manifest to that one, which must be in the context before.

  Raises:
    ValueError: another run writes there, somebody else's files are there, or
      another configuration.
    OSError: the directory cannot be made or written to.
  """
  directory = pathlib.Path(workdir)
  if not leads:
    directory.mkdir(parents=True, exist_ok=True)
    yield Claim(directory, None)
    return
  outer = _open.get(directory.resolve())
  if outer is not None and outer.is_this_thread:
    _compare(directory, config)
    yield outer
    return
  if not lock.is_there(directory):
    check_ours(directory)
  with _made(directory), lock.held(directory) as locked:
    check_ours(directory)
    listed = manifest.Manifest(directory)
    listed.sweep()
    claim = _open[directory.resolve()] = Claim(directory, listed, locked)
    try:
      with whole_file.watched_by(listed.record):
        _compare(directory, config, listed)
        with _taken_back_if_wrong(listed):
          yield claim
    finally:
      del _open[directory.resolve()]


@contextlib.contextmanager
def _taken_back_if_wrong(listed: manifest.Manifest) -> Iterator[None]:
  try:
    yield
    listed.settle()
  except OSError:  # the same command goes on when there is room again
    raise
  except Exception:
    if not listed.settled:
      listed.remove()
    raise


def is_begun(workdir: str | pathlib.Path) -> bool:
  """Whether a run has claimed the directory before."""
  return (pathlib.Path(workdir) / 'config.json').exists()


def check_ours(workdir: str | pathlib.Path) -> None:
  """Refuses a directory that holds what no run wrote, unless runs did, too.

  Raises:
    ValueError: so it is; the message names one file.
  """
  directory = pathlib.Path(workdir)
  if not os.path.lexists(directory):
    return
  if not directory.is_dir():
    raise ValueError(
      f'workdir must be a directory, got {directory}, which is none; choose '
      'another workdir.'
    )
  if (directory / manifest.NAME).is_file():
    manifest.Manifest(directory)  # raises unless it is one of ours
    return
  for path in sorted(directory.iterdir()):
    ours = path.name == lock.NAME or manifest.is_ours(path.name)
    if (ours and path.is_file()) or _UNASKED.fullmatch(path.name):
      continue
    inside = (one for one in sorted(path.rglob('*')) if not one.is_dir())
    raise ValueError(
      'workdir must be new, empty, or made by a run, got '
      f'{directory} with {next(inside, path).relative_to(directory)}, which no '
      'run of this version wrote; choose another workdir.'
    )


@contextlib.contextmanager
def _made(directory: pathlib.Path) -> Iterator[None]:
  """Makes a directory; takes it and its new parents back if all are empty."""
  new = [p for p in (directory, *directory.parents) if not p.exists()]
  directory.mkdir(parents=True, exist_ok=True)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):  # something is there
      for path in new:
        path.rmdir()


def _compare(
  directory: pathlib.Path,
  config: Mapping[str, Any],
  listed: manifest.Manifest | None = None,
) -> None:
  """Writes config.json where there is none yet, or compares with it."""
  asked = json.loads(json.dumps(config))
  path = directory / 'config.json'
  if not path.exists() and listed is not None and not listed.settled:
    write_json(path, asked)
    return
  try:
    found = json.loads(regular.read_bytes(path))
  except (ValueError, RecursionError, FileNotFoundError) as error:
    what = 'none' if isinstance(error, FileNotFoundError) else f'{error}'
    raise ValueError(
      f'workdir must hold a readable config.json, got {what} in {path}; '
      'restore it or choose another workdir.'
    ) from error
  difference = _first_difference(found, asked)
  if difference is not None:
    field, there, here = difference
    raise ValueError(
      f'workdir must be new or hold the same configuration, got {directory} '
      f'with {field} = {there} there and {here} asked; choose another '
      'workdir or the configuration of this one.'
    )


_MISSING = 'nothing'


def _first_difference(
  found: Any, asked: Any, field: str = ''
) -> tuple[str, str, str] | None:
  """(dotted field, value found, value asked) where two trees first differ."""
  if isinstance(found, dict) and isinstance(asked, dict):
    for key in dict.fromkeys([*asked, *found]):
      inner = _first_difference(
        found.get(key, _MISSING),
        asked.get(key, _MISSING),
        f'{field}.{key}' if field else str(key),
      )
      if inner is not None:
        return inner
    return None
  # A field that a later version added, and that is not used, is no difference.
  unused = (None, _MISSING)
  if found == asked or (found in unused and asked in unused):
    return None
  shown, wanted = (
    'a section' if isinstance(v, dict) else str(v) for v in (found, asked)
  )
  return field or 'the configuration', shown, wanted


def read_summary(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Reads summary.json; empty if there is none.

  Raises:
    ValueError: it is damaged.
  """
  path = pathlib.Path(workdir) / 'summary.json'
  remedy = 'delete it and run again, which makes it anew'
  return sealed.read_json(path, remedy) if path.exists() else {}


def add_to_summary(
  workdir: str | pathlib.Path, entries: Mapping[str, Any]
) -> dict[str, Any]:
  """Sets top-level entries of summary.json, keeps the others, returns all.

  Raises:
    ValueError: the one that is there is damaged.
  """
  summary = read_summary(workdir) | json.loads(json.dumps(entries))
  sealed.write_json(pathlib.Path(workdir) / 'summary.json', summary)
  return summary


@functools.cache
def code_version() -> str:
  """Version of the package and a hash of its source, e.g. '0.1.0+1f2e3d4c'.

  Works where there is no repository, and sees changes not yet committed.
  Configurations, which an installation has within the package, do not count.
  """
  root = pathlib.Path(sparse_interp.__file__).parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    if path.is_relative_to(root / 'experiments'):
      continue
    digest.update(path.relative_to(root).as_posix().encode() + b'\0')
    digest.update(path.read_bytes() + b'\0')
  return f'{sparse_interp.__version__}+{digest.hexdigest()[:8]}'
