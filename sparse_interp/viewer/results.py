"""What a run achieved, in rows, headline figures and sentences.

Reads summary.json. Beside the documented fields, a task that is not learned or
not pruned may say why in `not_pruned` or `reason`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sparse_interp.viewer.artifacts import StoredCircuit

# What a removed part takes, by kind of ablation.
_VALUES = {
  'mean': 'its mean over {tokens} tokens of pretraining text',
  'task_mean': 'its mean over training prompts of the task',
  'zero': '0',
  'resample': 'its value on another prompt of the task',
  'counterfactual': 'its value on the other prompt of the pair',
  'subsets': 'its mean over {tokens} tokens of pretraining text, a random '
  'half at a time',
}


def task_row(
  name: str, entry: Mapping[str, Any], stored: bool, target: float
) -> dict[str, Any]:
  """Returns one row of the task table, with what became of the task."""
  circuit = dict(entry.get('circuit') or {})
  status, reason = _outcome(entry, circuit, stored, target)
  return {
    'name': name,
    'status': status,
    'reason': reason,
    'full_loss': entry.get('full_loss'),
    'full_loss_interval': entry.get('full_loss_interval'),
    'conditions': entry.get('conditions', {}),
    'learned': bool(entry.get('learned', False)),
    'circuit': circuit,
    'stored': stored,
  }


def _outcome(
  entry: Mapping[str, Any],
  circuit: Mapping[str, Any],
  stored: bool,
  target: float,
) -> tuple[str, str]:
  """Returns a status and, for anything but a good circuit, the reason."""
  if entry.get('unposable'):
    return 'not posable', str(entry['unposable'])
  given = (
    entry.get('not_pruned') or entry.get('reason') or circuit.get('reason')
  )
  loss = entry.get('full_loss')
  if not entry.get('learned'):
    found = f'{loss:.3f}' if is_finite(loss) else 'not measured'
    told = f'; {given}' if given else ''
    return (
      'not learned',
      f'test loss of the full model {found}, target {target:g}{told}',
    )
  if not is_finite(circuit.get('test_loss')):
    return 'not pruned', f'learned, but {given or "no circuit was looked for"}'
  if circuit['test_loss'] > target:
    return (
      'above target',
      f'circuit loss {circuit["test_loss"]:.3f}, target {target:g}',
    )
  if not stored:
    return 'files missing', 'the circuit was measured, but its files are gone'
  return 'circuit found', ''


def headline(
  summary: Mapping[str, Any],
  tasks: Sequence[Mapping[str, Any]],
  n_circuits: int,
  target: float,
) -> list[list[str]]:
  """Returns [figure, what it counts] of the headline figures."""
  tiles = []
  if tasks:
    learned = sum(task['learned'] for task in tasks)
    tiles.append(
      [
        f'{learned} of {len(tasks)}',
        f'tasks learned: test loss of the full model at most {target:g}',
      ]
    )
  met = sum(task['status'] == 'circuit found' for task in tasks)
  tiles.append(
    [f'{met} of {n_circuits}', 'circuits drawn below met every bound']
    if tasks
    else [str(n_circuits), 'circuits, each drawn below']
  )
  mean = summary.get('geometric_mean_edges')
  if is_finite(mean):
    tiles.append([f'{mean:.3g}', 'edges per circuit that did (geometric mean)'])
  sparse = [
    entry
    for entry in summary.get('nonzeros', {}).values()
    if is_finite(entry.get('asked')) and entry['asked'] < entry['size']
  ]
  found = sum(entry['found'] for entry in sparse)
  if found:
    size = sum(entry['size'] for entry in sparse)
    tiles.append(
      [
        f'1 in {size / found:.3g}',
        f'weights nonzero: {found:,} of {size:,} in the sparse tensors',
      ]
    )
  if is_finite(summary.get('wall_seconds')):
    tiles.append([_duration(summary['wall_seconds']), 'from text to this page'])
  return tiles


def run_facts(
  summary: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[list[str]]:
  """Returns [name, value] of what identifies the run."""
  names = ('device', 'code_version', 'corpus_hash', 'tokenizer_hash')
  facts = {**asked, **{n: summary[n] for n in names if n in summary}}
  return [[key.replace('_', ' '), _text(value)] for key, value in facts.items()]


def method_sentences(
  summary: Mapping[str, Any],
  asked: Mapping[str, Any],
  circuits: Sequence[StoredCircuit],
  target: float,
) -> list[list[str]]:
  """Returns [name, sentence]: how the numbers of the task table were made."""
  counts = {c.document.get('metrics', {}).get('test_pairs') for c in circuits}
  counts = sorted(count for count in counts if is_finite(count))
  method = {
    'learned': (
      'the test loss of the full model is at most the target of '
      f'{target:g}; guessing between the two answers costs ln 2 = 0.693'
    ),
    'split': (
      'every loss in the table is on test pairs'
      + (f' ({_text(counts)} per task)' if counts else '')
      + '; pruning saw train pairs only, and no prompt is in both'
    ),
    'necessity_loss': (
      'loss of the full model when the nodes of the circuit, and they alone, '
      'are ablated: high when the model needs them'
    ),
    'random_loss': (
      'loss of a random circuit with as many nodes: high when it matters '
      'which nodes are kept'
    ),
    'interval': '95%, in brackets',
  }
  ablations = {_ablation(c.document) for c in circuits}
  if ablations:
    method['ablation'] = ' / '.join(sorted(ablations))
  if 'seed' in asked:
    method['seed of the run'] = str(asked['seed'])
  seeds = {str(c.document.get('provenance', {}).get('seed')) for c in circuits}
  if seeds:
    method['seed of pruning'] = ', '.join(sorted(seeds))
  # What was recorded with the numbers overrides what is said here of them.
  for formulas in (
    *(c.document.get('formula', {}) for c in circuits),
    summary.get('formulas', {}),
  ):
    method.update({name: _text(formula) for name, formula in formulas.items()})
  return [[key.replace('_', ' '), value] for key, value in method.items()]


def _ablation(document: Mapping[str, Any]) -> str:
  ablation = document.get('ablation', {})
  value = _VALUES.get(ablation.get('kind'))
  if value is None or 'tokens' not in ablation:
    return _text(ablation)
  edges = document.get('gates') == 'edges'
  removed = 'a removed edge carries' if edges else 'a removed node is held at'
  return f'{removed} {value.format(tokens=_text(ablation["tokens"]))}'


def is_finite(value: Any) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)


def _duration(seconds: int | float) -> str:
  if seconds < 100:
    return f'{seconds:.0f} s'
  if seconds < 100 * 60:
    return f'{seconds / 60:.1f} min'
  return f'{seconds / 3600:.1f} h'


def _text(value: Any) -> str:
  """Returns a value as a person would write it."""
  if isinstance(value, Mapping):
    return ', '.join(f'{key}: {_text(item)}' for key, item in value.items())
  if isinstance(value, list | tuple):
    return ', '.join(map(_text, value))
  if isinstance(value, str | bool | None):
    return str(value)
  return f'{value:,}' if isinstance(value, int) else f'{value:.4g}'
