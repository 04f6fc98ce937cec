"""What became of every task, in rows and headline figures.

Reads summary.json as the prune run writes it, and the circuits beside it; what
neither says is not said.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from sparse_interp.viewer.artifacts import StoredCircuit

# Of a circuit, in nats, each with its interval where it was measured.
LOSSES = (
  'test_loss',
  'raw_loss',
  'test_kl',
  'raw_kl',
  'necessity_loss',
  'calibrated_necessity_loss',
  'random_loss',
)

FOUND, UNMEASURED = 'circuit found', 'not measured'


class Target(NamedTuple):
  """What a run asked of models and circuits.

  Attributes:
    loss: largest task loss of a full model that counts as having learned a
      task, and of circuits largest loss of the kind that `on` says; None where
      no artifact says it.
    on: 'task' or 'kl'.
  """

  loss: float | None
  on: str


def find_target(
  summary: Mapping[str, Any], circuits: Sequence[StoredCircuit]
) -> Target:
  """Returns the target that the summary states, or else every circuit."""
  asked = section(summary, 'asked', 'config', 'prune')
  stated = [summary, asked]
  configs = [section(c.document, 'prune_config') for c in circuits]
  targets = {(c.get('target_loss'), c.get('target_on')) for c in configs}
  if len(targets) == 1:
    stated.append(configs[0])
  for fields in stated:
    if is_finite(fields.get('target_loss')):
      on = 'kl' if fields.get('target_on') == 'kl' else 'task'
      return Target(float(fields['target_loss']), on)
  return Target(None, 'task')


def section(document: Any, *keys: str) -> Mapping[str, Any]:
  """Returns a section within sections; empty where there is none."""
  for key in keys:
    document = document.get(key) if isinstance(document, Mapping) else None
  return document if isinstance(document, Mapping) else {}


def task_row(
  name: str,
  entry: Mapping[str, Any],
  stored: StoredCircuit | None,
  target: Target,
) -> dict[str, Any]:
  """Returns one row of the task table, with what became of the task."""
  found = section(entry, 'circuit') or section(entry, 'failed_circuit')
  status, reason = _outcome(entry, found, stored, target)
  numbers = dict(found)
  if stored is not None and found and not _difference(found, stored):
    numbers = _stored_numbers(stored) | numbers
  return {
    'name': name,
    'status': status,
    'reason': reason,
    # Of tasks that nobody knows by their names.
    'description': str(entry.get('description') or ''),
    'full_loss': entry.get('full_loss'),
    'full_loss_interval': entry.get('full_loss_interval'),
    'conditions': section(entry, 'full_conditions'),
    'learned': bool(entry.get('learned', False)),
    'circuit': numbers,
    'stored': stored is not None,
  }


def _outcome(
  entry: Mapping[str, Any],
  found: Mapping[str, Any],
  stored: StoredCircuit | None,
  target: Target,
) -> tuple[str, str]:
  """Returns a status and, for anything but a good circuit, the reason."""
  if entry.get('unposable'):
    return 'not posable', str(entry['unposable'])
  if 'learned' not in entry:
    return UNMEASURED, 'summary.json has no loss of the full model on it'
  given = entry.get('not_pruned') or entry.get('reason')
  if not entry['learned']:
    return 'not learned', _not_learned(entry, given, target)
  if not is_finite(found.get('test_loss')):
    return 'not pruned', f'learned, but {given or "no circuit was looked for"}'
  if entry.get('untried'):
    return 'no verdict', str(entry['untried'])
  if found.get('missed') or not section(entry, 'circuit'):
    missed = ', '.join(map(str, found.get('missed') or ()))
    return 'bound missed', str(given or f'the circuit found missed {missed}')
  name = 'test_kl' if target.on == 'kl' else 'test_loss'
  reached = found.get(name)
  if target.loss is not None and is_finite(reached) and reached > target.loss:
    return (
      'bound missed',
      f'{name} {beside(reached, target.loss)}, target {target.loss}',
    )
  if stored is None:
    return 'files missing', 'the circuit was measured, but its files are gone'
  if difference := _difference(found, stored):
    return 'files differ', difference
  return FOUND, ''


def _not_learned(entry, given, target):
  loss = entry.get('full_loss')
  words = 'test loss of the full model not measured'
  if is_finite(loss):
    words = f'test loss of the full model {loss:.3f}'
    if target.loss is not None:
      words = (
        f'test loss of the full model {beside(loss, target.loss)}, target '
        f'{target.loss}'
      )
  return f'{words}; {given}' if given else words


def _difference(found: Mapping[str, Any], stored: StoredCircuit) -> str:
  """Says how the summary and the files of a circuit differ, if they do."""
  metrics = section(stored.document, 'metrics')
  for what, told, there in (
    ('nodes', found.get('nodes'), len(stored.nodes)),
    ('edges', found.get('edges'), len(stored.edges)),
    ('test_loss', found.get('test_loss'), metrics.get('test_loss')),
  ):
    if told is not None and there is not None and told != there:
      return (
        f'summary.json tells of {what} {told:.4g}, the files of the circuit '
        f'have {there:.4g}'
      )
  return ''


def _stored_numbers(stored: StoredCircuit) -> dict[str, Any]:
  """Returns what summaries of earlier versions leave to the circuit."""
  metrics = section(stored.document, 'metrics')
  names = ('raw_loss', 'raw_loss_interval', 'test_kl', 'raw_kl')
  calibration = section(stored.document, 'calibration')
  return {
    **{name: metrics[name] for name in names if name in metrics},
    **{name: calibration.get(name) for name in ('scale', 'shift')},
  }


def headline(
  summary: Mapping[str, Any],
  rows: Sequence[Mapping[str, Any]],
  n_circuits: int,
  target: Target,
) -> list[list[str]]:
  """Returns [figure, what it counts] of the headline figures."""
  tiles = []
  if any(row['status'] != UNMEASURED for row in rows):
    learned = sum(row['learned'] for row in rows)
    words = 'tasks learned'
    if target.loss is not None:
      words += f': test loss of the full model at most {target.loss}'
    tiles.append([f'{learned} of {len(rows)}', words])
    met = sum(row['status'] == FOUND for row in rows)
    tiles.append([f'{met} of {n_circuits}', 'circuits below met every bound'])
  elif n_circuits:
    tiles.append(
      [
        str(n_circuits),
        'circuits below; summary.json does not say which met their bounds',
      ]
    )
  mean = summary.get('geometric_mean_edges')
  if is_finite(mean):
    tiles.append(
      [
        f'{mean:.3g}',
        'edges per circuit that did (geometric mean, none counted as 1)',
      ]
    )
  tiles += _nonzero_tile(section(summary, 'nonzeros'))
  if is_finite(summary.get('wall_seconds')):
    tiles.append([_duration(summary['wall_seconds']), 'took the run'])
  return tiles


def _nonzero_tile(nonzeros: Mapping[str, Any]) -> list[list[str]]:
  """Counts the tensors that were to be sparse; all, where nobody asked."""
  entries = list(nonzeros.values())
  asked = [entry for entry in entries if is_finite(entry.get('asked'))]
  counted = [entry for entry in asked if entry['asked'] < entry['size']]
  where = 'the tensors that were made sparse'
  if not asked:
    counted, where = entries, 'all tensors'
  found = sum(entry['found'] for entry in counted)
  if not found:
    return []
  size = sum(entry['size'] for entry in counted)
  words = f'weights nonzero: {found:,} of {size:,} in {where}'
  return [[f'1 in {size / found:.3g}', words]]


def is_finite(value: Any) -> TypeGuard[int | float]:
  """Whether a value of JSON is a number that can be shown."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and math.isfinite(value)


def beside(value: float, limit: float) -> str:
  """Returns a number with as many digits as tell it from a limit."""
  for digits in range(3, 18):
    text = f'{value:.{digits}f}'
    if float(text) != limit or value == limit:
      return text
  return repr(value)


def _duration(seconds: int | float) -> str:
  if seconds < 100:
    return f'{seconds:.0f} s'
  if seconds < 100 * 60:
    return f'{seconds / 60:.1f} min'
  return f'{seconds / 3600:.1f} h'
