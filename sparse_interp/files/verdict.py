"""A verdict: each number that was asked of a circuit, its bound, met or not.

    from sparse_interp.files import verdict

    verdict.save(si.audit(model, circuit, task), 'verdict.json')
    verdict.load('verdict.json').found

verdict.json
  schema_version  1
  task            the behaviour that the circuit is for
  found           whether every bound is met by the end of its interval
  numbers         {name: {value, low, high, bound, at_most, passed, formula}};
                  bound and passed are null where nothing is asked of a number
  holds_under     ablations and adversaries under which the bounds are met
  nulls           {name: as in numbers}: what the same search reached where
                  there is nothing to find; {} where none was made
  provenance      hashes of model, circuit and pairs, seed, code version
  sha256          of all the other fields; see `files.sealed`
"""

import dataclasses
import html
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparse_interp.files import artifact, verdict_check

FORMAT = artifact.Format(
  'verdict',
  'verdict.json',
  npz='',
  schema_version=1,
  remedy='audit again, or restore it',
)

_HEAD = ('number', 'value', '95 % interval', 'bound', 'met', 'what it is')


class Number(NamedTuple):
  """A number with its interval and what is asked of it.

  Attributes:
    value: of it.
    low: end of its interval.
    high: end of its interval.
    bound: that the whole interval must keep; None where nothing is asked.
    passed: whether it does; None where nothing is asked.
    formula: what the number is, in words.
    at_most: whether the bound is a largest value, or else a smallest.
  """

  value: float
  low: float
  high: float
  bound: float | None
  passed: bool | None
  formula: str
  at_most: bool = True

  @property
  def bound_in_words(self) -> str:
    """'<= 0.15', or nothing where nothing is asked."""
    if self.bound is None:
      return ''
    return f'{"<=" if self.at_most else ">="} {self.bound:g}'


def number(
  value: float,
  interval: tuple[float, float] | list[float],
  formula: str,
  at_most: float | None = None,
  at_least: float | None = None,
) -> Number:
  """A number, judged by the end of its interval that is nearer to a miss."""
  low, high = interval
  if at_most is not None:
    return Number(value, low, high, at_most, bool(high <= at_most), formula)
  passed = None if at_least is None else bool(low >= at_least)
  return Number(value, low, high, at_least, passed, formula, at_least is None)


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
  """What was asked of a circuit and what came out; fields as in the file."""

  task: str
  numbers: dict[str, Number]
  holds_under: tuple[str, ...]
  nulls: dict[str, Number]
  provenance: dict[str, Any]

  @property
  def found(self) -> bool:
    """Whether every bound is met by the end of its interval."""
    return bool(self.asked) and all(one.passed for one in self.asked.values())

  @property
  def asked(self) -> dict[str, Number]:
    """The numbers that have a bound."""
    return {k: n for k, n in self.numbers.items() if n.bound is not None}

  @property
  def missed(self) -> dict[str, Number]:
    """The numbers that miss their bound."""
    return {k: n for k, n in self.asked.items() if not n.passed}

  def to_json(self) -> dict[str, Any]:
    """JSON values, as described above."""
    return {
      'schema_version': FORMAT.schema_version,
      'task': self.task,
      'found': self.found,
      'numbers': {k: n._asdict() for k, n in self.numbers.items()},
      'holds_under': list(self.holds_under),
      'nulls': {k: n._asdict() for k, n in self.nulls.items()},
      'provenance': self.provenance,
    }

  def __repr__(self) -> str:
    told = ', '.join(
      f'{name} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] '
      f'{one.bound_in_words}{"" if one.passed else " MISSED"}'
      for name, one in self.asked.items()
    )
    return f'Verdict({self.task}: {_standing(self)}; {told})'

  def _repr_html_(self) -> str:
    """A small table, for notebooks."""
    return table(self)


def _standing(verdict: Verdict) -> str:
  return 'found' if verdict.found else 'not found'


def table(verdict: Verdict) -> str:
  """The numbers of a verdict as an html table, those with a bound first."""
  rows = verdict.asked | verdict.numbers
  cells = [_cells(name, one) for name, one in rows.items()]
  return (
    f'<table><caption>{html.escape(verdict.task)}: {_standing(verdict)}'
    f'</caption>{_row("th", _HEAD)}'
    f'{"".join(_row("td", row) for row in cells)}</table>'
  )


def _cells(name: str, one: Number) -> tuple[str, ...]:
  met = {None: '', True: 'yes', False: 'no'}[one.passed]
  interval = f'{one.low:.4f} to {one.high:.4f}'
  value = f'{one.value:.4f}'
  return name, value, interval, one.bound_in_words, met, one.formula


def _row(tag: str, cells: tuple[str, ...]) -> str:
  inner = ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)
  return f'<tr>{inner}</tr>'


def save(verdict: Verdict, path: str | os.PathLike) -> None:
  """Writes a verdict, in one step.

  Args:
    verdict: to be written. The same gives the same bytes.
    path: of the file, by custom `FORMAT.json`; its directory is made if
      missing.

  Raises:
    ValueError: a number is not finite, or says what cannot be.
    OSError: the disk is full or may not be written to; a verdict that stood
      there before is then untouched.
  """
  document = verdict.to_json()
  try:
    verdict_check.check_document(document, Number._fields)
  except ValueError as error:
    raise ValueError(f'verdict {error}; correct it.') from None
  artifact.write_document(FORMAT, path, document)


def load(path: str | os.PathLike) -> Verdict:
  """Reads what `save` wrote.

  Raises:
    ValueError: the file is missing, damaged, of an unknown version or says what
      cannot be; the message names it and what to do.
  """
  document = artifact.read_document(FORMAT, path)
  try:
    return from_json(document)
  except ValueError as error:
    raise FORMAT.wrong(path, str(error)) from None


def from_json(document: Mapping[str, Any]) -> Verdict:
  """A verdict from what `Verdict.to_json` gave.

  Raises:
    ValueError: the document says what cannot be, or is of another version; the
      message begins with 'must'.
  """
  version = document.get('schema_version')
  if version != FORMAT.schema_version:
    raise ValueError(
      f'must have schema_version {FORMAT.schema_version}, got {version!r:.40}'
    )
  verdict_check.check_document(document, Number._fields)

  def numbers(name):
    return {key: Number(**value) for key, value in document[name].items()}

  verdict = Verdict(
    document['task'],
    numbers('numbers'),
    tuple(document['holds_under']),
    numbers('nulls'),
    dict(document['provenance']),
  )
  if verdict.found != document['found']:
    raise ValueError(
      f'must have found as its numbers say, got {document["found"]}'
    )
  return verdict
