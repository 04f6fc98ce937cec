"""What the prune run says on the console: lines as it goes, a table at last."""

import time
from collections.abc import Mapping
from typing import Any

from sparse_interp.circuits.counting import Progress
from sparse_interp.training import metrics

# A line every so many seconds, however fast the steps are.
_SECONDS = 5


def task_line(name: str, entry: Mapping[str, Any]) -> str:
  """What the full model does on a task."""
  if 'unposable' in entry:
    return f'{name:<28} cannot be posed: {entry["unposable"]}'
  verdict = 'learned' if entry['learned'] else 'not learned'
  return f'{name:<28} full model {entry["full_loss"]:.3f}  {verdict}'


def circuit_line(name: str, entry: Mapping[str, Any]) -> str:
  """What was found for a task, reported or not."""
  found = entry['circuit'] or entry['failed_circuit']
  line = (
    f'{name:<28} {found["nodes"]} nodes, {found["edges"]} edges, '
    f'test loss {found["test_loss"]:.3f} (raw {found["raw_loss"]:.3f}), '
    f'without it {without_it(found):.3f}, random {found["random_loss"]:.3f}'
  )
  if 'droppable_units' in found:
    line += f', {found["droppable_units"]} could be dropped alone'
  if 'missed' not in found:
    return line
  return f'{line}, NOT FOUND: missed {", ".join(found["missed"])}'


def progress_line(name: str, numbers: Mapping[str, Any]) -> str:
  """Where the search for a circuit stands."""
  shown = [
    f'{key} {value:.3f}' if isinstance(value, float) else f'{key} {value}'
    for key, value in numbers.items()
    if key not in ('phase', 'seconds_left', 'about_seconds_left')
  ]
  for about in ('', 'about_'):
    seconds = numbers.get(f'{about}seconds_left')
    if seconds is not None:
      word = about.replace('_', ' ')
      shown.append(f'{word}{metrics.duration(seconds)} left')
  return f'{name:<28} {numbers.get("phase", "")}: {", ".join(shown)}'


def progress(phase: str, name: str) -> Progress:
  """Says where the search for a circuit stands, now and then.

  Args:
    phase: of the run, in front of every line.
    name: of the task or program.
  """
  last = [time.monotonic()]

  def show(numbers: Mapping[str, Any]) -> None:
    if time.monotonic() - last[0] >= _SECONDS:
      last[0] = time.monotonic()
      metrics.say(phase, progress_line(name, numbers))

  return show


def print_table(summary: Mapping[str, Any]) -> None:
  """Prints the circuits of a summary as a table."""
  head = (
    f'{"task":<28}{"full":>7}{"nodes":>7}{"edges":>7}{"circuit":>9}{"raw":>8}'
    f'{"without":>9}{"random":>8}'
  )
  lines = [head, '-' * len(head)]
  for name, entry in summary['tasks'].items():
    full = entry['full_loss']
    line = f'{name:<28}{"-" if full is None else f"{full:.3f}":>7}'
    lines.append(line + _outcome(entry))
  circuits = [entry['circuit'] for entry in summary['tasks'].values()]
  ablations = sorted({found['ablation'] for found in circuits if found})
  shown = f', ablation: {", ".join(ablations)}' if ablations else ''
  mean = summary['geometric_mean_edges']
  lines.append(
    f'{len(summary["learned_tasks"])} tasks learned, '
    f'{len(summary["pruned_tasks"])} circuits that met every bound, geometric '
    f'mean of their edges {"-" if mean is None else f"{mean:.1f}"} (test pairs'
    f'{shown}; raw: without scale and shift, all others with)'
  )
  print('\n'.join(lines), flush=True)


def _outcome(entry):
  found = entry['circuit'] or entry.get('failed_circuit')
  if found is not None:
    line = (
      f'{found["nodes"]:>7}{found["edges"]:>7}{found["test_loss"]:>9.3f}'
      f'{found["raw_loss"]:>8.3f}{without_it(found):>9.3f}'
      f'{found["random_loss"]:>8.3f}'
    )
    if 'missed' in found:
      line += f'  not found: missed {", ".join(found["missed"])}'
    return line
  if 'unposable' in entry:
    return '  cannot be posed'
  if 'not_pruned' in entry:
    return f'  learned, not pruned: {entry["not_pruned"]}'
  return '  learned, not pruned' if entry['learned'] else '  not learned'


def without_it(found: Mapping[str, Any]) -> float:
  """Loss of the model without the circuit, calibrated where that was done."""
  return found.get('calibrated_necessity_loss', found['necessity_loss'])
