"""What a hyper-parameter search leaves on disk, and finds there again.

`trials.json` says which search it is and lists its trials; `trial_<n>.npz`
holds the ranking of units that trial n learned. Trials appear in the list after
their rankings are written, and the list is replaced in one step: a search that
is killed loses at most the iteration that was under way.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int

from sparse_interp.files import json_text, npz, whole_file

# A ranking: units, most important first, and how many gates are on.
Ranking = tuple[Int[np.ndarray, 'units'], int]

_LIST = 'trials.json'


class Journal:
  """Finished trials of one search, on disk or only in memory.

  Attributes:
    trials: {'trial', 'params', ...} of each, in order; JSON values only.
  """

  def __init__(
    self, directory: pathlib.Path | None, identity: Mapping[str, Any]
  ):
    """Reads what is there.

    Args:
      directory: made if missing; None keeps everything in memory.
      identity: JSON values that another search would not share.

    Raises:
      ValueError: the directory holds another search, or an unreadable one.
    """
    self.trials: list[dict[str, Any]] = []
    self._directory, self._rankings = directory, {}
    self._identity = json.loads(json.dumps(identity))
    if directory is None:
      return
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / _LIST).exists():
      self.trials = self._read(directory / _LIST)

  def _read(self, path):
    try:
      found = json_text.read(path, 'choose another directory')
      there, trials = found['search'], found['trials']
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'search.directory must hold a readable {_LIST}, got {path}: {error!r};'
        ' choose another directory.'
      ) from error
    for name, asked in self._identity.items():
      if there.get(name) != asked:
        raise ValueError(
          'search.directory must be new or hold the same search, got '
          f'{self._directory} with {name} = {there.get(name)} there and '
          f'{asked} asked; choose another directory.'
        )
    return trials

  def append(
    self, trials: Sequence[Mapping[str, Any]], rankings: Sequence[Ranking]
  ) -> None:
    """Adds finished trials, all or none.

    Raises:
      OSError: the disk is full or may not be written to.
    """
    for trial, (order, active) in zip(trials, rankings, strict=True):
      if self._directory is None:
        self._rankings[trial['trial']] = order, active
      else:
        arrays = {'order': order.astype(np.int32), 'active': np.int32(active)}
        self._write(
          f'trial_{trial["trial"]}.npz',
          lambda file, arrays=arrays: np.savez_compressed(file, **arrays),
        )
    trials = self.trials + [dict(trial) for trial in trials]
    if self._directory is not None:
      shown = {'search': self._identity, 'trials': trials}
      text = json.dumps(shown, indent=1, allow_nan=False) + '\n'
      self._write(_LIST, lambda file: file.write(text.encode()))
    self.trials = trials

  def ranking(self, trial: int) -> Ranking:
    """The ranking that a trial learned.

    Raises:
      OSError: its file is gone.
    """
    if self._directory is None:
      return self._rankings[trial]
    path = self._directory / f'trial_{trial}.npz'
    arrays = npz.read(path, 'choose another directory')
    return arrays['order'].astype(int), int(arrays['active'])

  def _write(self, name: str, write: Callable[[BinaryIO], Any]) -> None:
    """Replaces a file in one step."""
    with (
      whole_file.writing(self._directory / name) as part,
      part.open('wb') as file,
    ):
      write(file)
