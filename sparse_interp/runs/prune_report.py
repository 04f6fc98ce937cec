"""What the summary says of a circuit: its numbers, and the bounds it met."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sparse_interp.auditing import criteria
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.faithfulness import FORMULAS as MEASURES
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.files.verdict import Number

# Losses are two-way cross-entropies in nats: ln 2 = 0.69 is a coin toss.
FORMULAS = {
  **MEASURES,
  'task loss': 'two-way cross-entropy in nats between the answers of a pair at '
  'the last token, mean over both sides and all pairs',
  'learned': 'on train pairs, the loss of the full model is at most '
  'target_loss (guessing between the two answers costs ln 2 = 0.693) and the '
  'right answer has at least least_probability among all tokens, on average',
  'found': 'every bound of the circuit is met by the end of its interval',
  'pairs': 'no prompt is both in a train pair and in a test pair; circuits are '
  'found on train pairs alone',
  'edges': 'nonzero weights between kept nodes; with gates on edges, kept ones',
}


def report(circuit: Circuit, config: PruneConfig) -> dict[str, Any]:
  """The circuit's part of a task's entry in the summary, or what it missed.

  Args:
    circuit: as it was found.
    config: what was asked of it.
  """
  asked = dataclasses.asdict(config)
  numbers = criteria.numbers(circuit.metrics, asked)
  judged = {name: one for name, one in numbers.items() if one.bound is not None}
  missed = [_miss(name, one) for name, one in judged.items() if not one.passed]
  missed += [
    f'{name}, which was not measured'
    for name in criteria.not_measured(numbers, asked)
  ]
  found = {
    'nodes': circuit.node_count,
    'edges': circuit.edge_count,
    **{name: circuit.metrics[name] for name in _told(circuit.metrics)},
    'scale': circuit.scale,
    'shift': circuit.shift,
    'bounds': {
      f'{name} {one.bound_in_words}': bool(one.passed)
      for name, one in judged.items()
    },
    'ablation': _ablation_in_words(circuit.ablation),
    'gates': circuit.gates,
  }
  if not missed:
    return {'circuit': found}
  return {
    'circuit': None,
    'failed_circuit': {**found, 'missed': missed},
    'reason': (
      f'the circuit found ({found["nodes"]} nodes, {found["edges"]} edges) '
      f'missed {", ".join(missed)}'
    ),
  }


def _told(metrics: Mapping[str, Any]) -> list[str]:
  """Names of the measures and their intervals, and of what is by condition."""
  names = [
    name for measure in MEASURES for name in (measure, f'{measure}_interval')
  ]
  return [n for n in (*names, 'under', 'test_conditions') if n in metrics]


def _miss(name: str, one: Number) -> str:
  """A bound with the number that missed it, and the end of its interval."""
  end = one.high if one.at_most else one.low
  # No rounding may make the number look like the limit.
  digits = next(n for n in range(3, 18) if float(f'{end:.{n}f}') != one.bound)
  shown = f'{one.value:.{digits}f}'
  if one.low != one.high:
    shown += f' (95 %: {one.low:.{digits}f} to {one.high:.{digits}f})'
  return f'{name} {one.bound_in_words} with {shown}'


def _ablation_in_words(ablation: Mapping[str, Any]) -> str:
  kind, over = ablation['kind'], ablation['over']
  # An imported model brings no text that it was trained on.
  over = 'the text sample' if over == 'pretraining' else over
  return kind if kind == 'zero' else f'{kind} over {over}'
