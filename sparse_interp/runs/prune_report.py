"""What the summary says of a circuit: its numbers, and the bounds it met."""

from collections.abc import Mapping
from typing import Any

from sparse_interp.circuits.audit import LEAST_LOSS
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.runs import table
from sparse_interp.viewer.results import LOSSES

# Losses are two-way cross-entropies in nats: ln 2 = 0.69 is a coin toss.
FORMULAS = {
  'full_loss': 'two-way cross-entropy in nats between the answers of a pair at '
  'the last token, mean over both sides and all test pairs, full model',
  'learned': 'full_loss is at most target_loss; guessing between the two '
  'answers costs ln 2 = 0.693',
  'test_loss': 'the same with every node or edge outside the circuit ablated, '
  'logits scaled and shifted as fitted on train pairs',
  'raw_loss': 'test_loss with scale 1 and shift 0',
  'test_kl': 'KL(full model || circuit) over the two answers, test pairs, '
  'logits scaled and shifted; raw_kl: with scale 1 and shift 0',
  'necessity_loss': 'full model with the circuit ablated, test pairs, without '
  'scale and shift',
  'random_loss': 'random circuit of equal size at every site or matrix, test '
  'pairs, scaled and shifted like the circuit, mean over draws',
  'pairs': 'no prompt is both in a train pair and in a test pair; circuits are '
  'found on train pairs alone',
  'edges': 'nonzero weights between kept nodes; with gates on edges, kept ones',
  'intervals': '95 % bootstrap over test pairs',
}


def report(circuit: Circuit, config: PruneConfig) -> dict[str, Any]:
  """The circuit's part of a task's entry in the summary, or what it missed.

  Args:
    circuit: as it was found.
    config: what was asked of it.
  """
  reached = 'test_kl' if config.target_on == 'kl' else 'test_loss'
  measured = circuit.metrics
  met = bounds(
    measured[reached],
    measured['necessity_loss'],
    measured['random_loss'],
    config.target_loss,
    reached,
  )
  found = {
    'nodes': circuit.node_count,
    'edges': circuit.edge_count,
    **{
      name: measured[name]
      for loss in LOSSES
      for name in (loss, f'{loss}_interval')
      if name in measured
    },
    'scale': circuit.scale,
    'shift': circuit.shift,
    'bounds': met,
    'test_conditions': measured['test_conditions'],
    'ablation': _ablation_in_words(circuit.ablation),
    'gates': circuit.gates,
  }
  missed = [bound for bound, is_met in met.items() if not is_met]
  if not missed:
    return {'circuit': found}
  return {
    'circuit': None,
    'failed_circuit': {**found, 'missed': missed},
    'reason': (
      f'the circuit found ({found["nodes"]} nodes, {found["edges"]} edges) '
      f'missed {table.missed_in_words(found, missed)}'
    ),
  }


def _ablation_in_words(ablation: Mapping[str, Any]) -> str:
  kind, over = ablation['kind'], ablation['over']
  # An imported model brings no text that it was trained on.
  over = 'the text sample' if over == 'pretraining' else over
  return kind if kind == 'zero' else f'{kind} over {over}'


def bounds(
  reached: float,
  necessity_loss: float,
  random_loss: float,
  target: float,
  name: str = 'test_loss',
) -> dict[str, bool]:
  """The bounds that a circuit must meet on test pairs, and whether it does.

  Args:
    reached: loss that the target is for.
    necessity_loss: of the model without the circuit.
    random_loss: of random circuits.
    target: largest loss allowed.
    name: of the loss that the target is for.
  """
  return {
    f'{name} <= {target}': reached <= target,
    f'necessity_loss >= {LEAST_LOSS}': necessity_loss >= LEAST_LOSS,
    f'random_loss >= {LEAST_LOSS}': random_loss >= LEAST_LOSS,
  }
