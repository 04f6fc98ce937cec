"""Records: what units of a model do on excerpts of a text, and their two files.

records.json
  schema_version  1
  units           ['site:channel', ...]
  model           fields of GPTConfig
  model_hash      of the parameters: `params_hash` of circuits
  text_hash       SHA-256 of the windows of tokens
  tokenizer_hash  of the tokenizer, or null
  seed            of what was chosen at random
  top, quantiles, per_quantile, random   excerpts of each kind; see `Records`
  length          tokens of an excerpt
  windows, window_length   of the text: tokens seen are their product
  pieces          [[token, its text], ...], ascending: of all tokens in
                  excerpts; empty without a tokenizer
  formula         {name: sentence}: what the numbers are
  versions        {'code', 'python' or library: version}
  npz_sha256      of records.npz
  sha256          of all the other fields; see `files.sealed`

records.npz, by names and with dtypes and shapes of `record_check.ARRAYS`:
what `Records` says of them.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

import sparse_interp
from sparse_interp.files import artifact, record_check
from sparse_interp.files.record_check import ARRAYS, KINDS

FORMAT = artifact.Format(
  'records',
  'records.json',
  'records.npz',
  schema_version=1,
  remedy='record again, or restore it',
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Records:
  """Activations of units on excerpts of a text, with their statistics.

  Excerpts are rows of a table, by unit, kind, quantile, and then the best
  first: the highest of the top, else in the order of their lots. A unit may
  have fewer than were asked for; `records.recording.record` says when.

  Attributes:
    units: 'site:channel' of each.
    model: fields of GPTConfig.
    model_hash, text_hash, tokenizer_hash: what these were.
    seed: of what was chosen at random.
    top: most excerpts of the highest activations, for each unit.
    quantiles: into how many the nonzero activations are divided.
    per_quantile: most excerpts from each.
    random: most excerpts from anywhere.
    length: tokens of an excerpt.
    windows, window_length: of the text.
    pieces: {token: its text} for all tokens in excerpts, or empty.
    formula: {name: sentence}.
    versions: of the code and of libraries.
    mean: (units,) float64, over all tokens.
    active: (units,) float64, share of tokens where it is not zero.
    lowest, highest: (units,) float32, over all tokens.
    edges: (units, quantiles + 1) float32, of the nonzero activations; 0 for a
      dead unit.
    unit: (excerpts,) int32, index into units.
    kind: (excerpts,) int32, index into KINDS.
    quantile: (excerpts,) int32; -1 where the kind is another.
    window: (excerpts,) int32, row of the text.
    start: (excerpts,) int32, where the excerpt starts in its window.
    position: (excerpts,) int32, the token in the excerpt that it is for.
    tokens: (excerpts, length) int32.
    values: (excerpts, length) float32, activations of its unit.
  """

  units: tuple[str, ...]
  model: dict[str, Any]
  model_hash: str
  text_hash: str
  tokenizer_hash: str | None
  seed: int
  top: int
  quantiles: int
  per_quantile: int
  random: int
  length: int
  windows: int
  window_length: int
  pieces: dict[int, str]
  formula: dict[str, str]
  versions: dict[str, str]
  mean: np.ndarray
  active: np.ndarray
  lowest: np.ndarray
  highest: np.ndarray
  edges: np.ndarray
  unit: np.ndarray
  kind: np.ndarray
  quantile: np.ndarray
  window: np.ndarray
  start: np.ndarray
  position: np.ndarray
  tokens: np.ndarray
  values: np.ndarray

  @property
  def tokens_seen(self) -> int:
    """Tokens of the whole text."""
    return self.windows * self.window_length

  def rows(self, unit: str, kind: str | None = None) -> np.ndarray:
    """Indices of a unit's excerpts, of one kind or of all, in their order.

    Raises:
      ValueError: the unit was not recorded, or there is no such kind.
    """
    if unit not in self.units:
      raise ValueError(
        f'unit must be one of the {len(self.units)} recorded, such as '
        f'{self.units[0]}, got {unit!r}; record it, too.'
      )
    mine = self.unit == self.units.index(unit)
    if kind is None:
      return np.flatnonzero(mine)
    if kind not in KINDS:
      raise ValueError(
        f'kind must be one of {", ".join(KINDS)}, got {kind!r}; choose one.'
      )
    return np.flatnonzero(mine & (self.kind == KINDS.index(kind)))

  def __repr__(self) -> str:
    """One line: how much of what."""
    return (
      f'Records({len(self.units):,} units on {self.tokens_seen:,} tokens: '
      f'{len(self.unit):,} excerpts of {self.length}; model {self.model_hash}, '
      f'text {self.text_hash[:16]}, seed {self.seed})'
    )

  def _repr_html_(self) -> str:
    """A small table, for notebooks, made where pages are."""
    return sparse_interp.records_html(self)


def write(records: Records, directory: str | os.PathLike) -> None:
  """Writes records; at no moment are there half-written ones.

  Args:
    records: to be written. The same give the same bytes.
    directory: made if missing.

  Raises:
    OSError: the disk is full or may not be written to; records that stood there
      before are then untouched.
  """
  document = {
    field.name: getattr(records, field.name)
    for field in dataclasses.fields(records)
    if field.name not in ARRAYS
  }
  document['schema_version'] = FORMAT.schema_version
  document['pieces'] = sorted(records.pieces.items())
  arrays = {name: getattr(records, name) for name in ARRAYS}
  artifact.write(FORMAT, directory, document, arrays)


def read(directory: str | os.PathLike) -> Records:
  """Reads what `write` wrote.

  Raises:
    ValueError: a file is missing, damaged, of an unknown version or says what
      cannot be; the message names the file and what to do.
  """
  document, arrays = artifact.read(FORMAT, directory)
  del document['schema_version']
  directory = pathlib.Path(directory)
  fields = {field.name for field in dataclasses.fields(Records)}
  try:
    record_check.check_document(document, fields - ARRAYS.keys())
  except ValueError as error:
    raise FORMAT.wrong(directory / FORMAT.json, str(error)) from None
  try:
    record_check.check_arrays(document, arrays)
  except ValueError as error:
    raise FORMAT.wrong(directory / FORMAT.npz, str(error)) from None
  document['units'] = tuple(document['units'])
  document['pieces'] = dict(document['pieces'])
  return Records(**document, **arrays)
