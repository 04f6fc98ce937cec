"""A page of circuits in memory: no workdir, no file but the page."""

import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sparse_interp.files.verdict import Verdict
from sparse_interp.viewer import report
from sparse_interp.viewer.artifacts import StoredCircuit
from sparse_interp.viewer.cells import Drawable, stored
from sparse_interp.viewer.results import (
  LOSSES,
  find_target,
  is_finite,
  section,
)

_NO_VERDICT = 'no verdict on it was given to the page'


@runtime_checkable
class Described(Protocol):
  """A model that says where it is from."""

  source: str
  workdir: pathlib.Path | None

  @property
  def provenance(self) -> Mapping[str, Any]:
    """Hashes and versions."""


def write_page(
  path: str | pathlib.Path,
  model: Described,
  circuits: Sequence[Drawable],
  verdicts: Sequence[Verdict | None] | None = None,
) -> None:
  """Writes circuits and their verdicts as one html file that needs no other.

  Args:
    path: of the page; it appears whole or not at all.
    model: that the circuits are of.
    circuits: to draw, in this order.
    verdicts: one for each circuit, None for one that was not on trial; None for
      none at all.

  Raises:
    ValueError: there are not as many verdicts as circuits, or a circuit is of
      another model.
  """
  verdicts = [None] * len(circuits) if verdicts is None else list(verdicts)
  if len(verdicts) != len(circuits):
    raise ValueError(
      f'verdicts must be one for each of {len(circuits)} circuits, got '
      f'{len(verdicts)}; give None for a circuit without.'
    )
  names = _names([circuit.task for circuit in circuits])
  drawn = [
    stored(circuit, name) for name, circuit in zip(names, circuits, strict=True)
  ]
  for one in drawn:
    _check_of(model, one)
  target = find_target({}, drawn).loss
  tasks = {
    one.name: _entry(one, verdict, target)
    for one, verdict in zip(drawn, verdicts, strict=True)
  }
  for one, verdict in zip(drawn, verdicts, strict=True):
    one.document['verdict'] = verdict and verdict.to_json()
  summary: dict[str, Any] = {'tasks': tasks, **model.provenance}
  if model.workdir is not None:
    summary['asked'] = {'config': {'model_workdir': model.source}}
  report.write(path, summary, [], drawn)


def _names(tasks: Sequence[str]) -> list[str]:
  """Names to show circuits by, no two alike."""
  seen: Counter[str] = Counter()
  names = []
  for task in tasks:
    seen[task] += 1
    names.append(task if seen[task] == 1 else f'{task} ({seen[task]})')
  return names


def _check_of(model: Described, circuit: StoredCircuit) -> None:
  found = section(circuit.document, 'provenance').get('params_hash')
  asked = model.provenance.get('params_hash')
  if None not in (found, asked) and found != asked:
    raise ValueError(
      f'circuits must be of this model, got {circuit.name} of another '
      f'(params_hash {found} instead of {asked}); give the model that it was '
      'found in.'
    )


def _entry(
  circuit: StoredCircuit, verdict: Verdict | None, target: float | None
) -> dict[str, Any]:
  """What the summary of a run would say of a circuit and its task."""
  metrics = section(circuit.document, 'metrics')
  calibration = section(circuit.document, 'calibration')
  full = metrics.get('full_loss')
  entry = {
    name: metrics[name]
    for name in ('full_loss', 'full_loss_interval', 'full_conditions')
    if name in metrics
  }
  if is_finite(full):
    entry['learned'] = target is None or full <= target
  found = {
    'nodes': len(circuit.nodes),
    'edges': len(circuit.edges),
    **calibration,
    **{
      name: metrics[name]
      for loss in LOSSES
      for name in (loss, f'{loss}_interval')
      if name in metrics
    },
    'test_conditions': metrics.get('test_conditions', {}),
  }
  if verdict is None:
    return {**entry, 'failed_circuit': found, 'untried': _NO_VERDICT}
  if verdict.found:
    return {**entry, 'circuit': found}
  missed = [
    f'{name} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}], asked '
    f'{one.bound_in_words}'
    for name, one in verdict.missed.items()
  ]
  return {
    **entry,
    'failed_circuit': {**found, 'missed': missed},
    'reason': f'the verdict: {"; ".join(missed)}',
  }
