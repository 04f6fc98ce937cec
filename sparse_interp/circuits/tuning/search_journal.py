"""What a hyper-parameter search leaves on disk, and finds there again.

`trials.json`, which is sealed, says which search it is and lists its trials and
the SHA-256 of their rankings; `trial_<n>.npz` holds the ranking of units that
trial n learned. Trials appear in the list after their rankings are written, and
the list is replaced in one step: a search that is killed loses at most the
iteration that was under way.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from sparse_interp.files import sealed, whole_file

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
      directory: made when needed; None keeps everything in memory.
      identity: JSON values that another search would not share.

    Raises:
      ValueError: the directory holds another search, or an unreadable one.
    """
    self.trials: list[dict[str, Any]] = []
    self._directory, self._rankings = directory, {}
    self._sha256: list[str] = []
    self._identity = json.loads(json.dumps(identity))
    if directory is None:
      return
    if (directory / _LIST).exists():
      self._read(directory / _LIST)

  def _read(self, path):
    found = sealed.read_json(path, self._remedy)
    there = found['search']
    for name, asked in self._identity.items():
      if there.get(name) != asked:
        raise ValueError(
          'search.directory must be new or hold the same search, got '
          f'{self._directory} with {name} = {there.get(name)} there and '
          f'{asked} asked; choose another directory.'
        )
    self.trials, self._sha256 = found['trials'], found['sha256_of_rankings']

  @property
  def _remedy(self):
    return f'delete {self._directory} or choose another search.directory'

  def append(
    self, trials: Sequence[Mapping[str, Any]], rankings: Sequence[Ranking]
  ) -> None:
    """Adds finished trials, all or none.

    Raises:
      OSError: the disk is full or may not be written to.
    """
    hashes = list(self._sha256)
    for trial, (order, active) in zip(trials, rankings, strict=True):
      if self._directory is None:
        self._rankings[trial['trial']] = order, active
      else:
        hashes.append(self._write_ranking(trial['trial'], order, active))
    trials = self.trials + [dict(trial) for trial in trials]
    if self._directory is not None:
      shown = {
        'search': self._identity,
        'trials': trials,
        'sha256_of_rankings': hashes,
      }
      sealed.write_json(self._directory / _LIST, shown)
    self.trials, self._sha256 = trials, hashes

  def ranking(self, trial: int) -> Ranking:
    """The ranking that a trial learned.

    Raises:
      ValueError: its file is damaged.
      OSError: its file is gone.
    """
    if self._directory is None:
      return self._rankings[trial]
    path = self._path(trial)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != self._sha256[trial]:
      raise ValueError(
        f'{path} must be as it was written, got content that does not match '
        f'its sha256 in {_LIST}; {self._remedy}.'
      )
    with np.load(io.BytesIO(content)) as arrays:
      return arrays['order'].astype(int), int(arrays['active'])

  def _path(self, trial: int) -> pathlib.Path:
    return self._directory / f'trial_{trial}.npz'

  def _write_ranking(
    self, trial: int, order: Int[np.ndarray, 'units'], active: int
  ) -> str:
    """Writes a ranking in one step and returns its SHA-256."""
    file = io.BytesIO()
    np.savez_compressed(
      file, order=order.astype(np.int32), active=np.int32(active)
    )
    with whole_file.writing(self._path(trial)) as part:
      part.write_bytes(file.getvalue())
    return hashlib.sha256(file.getvalue()).hexdigest()
