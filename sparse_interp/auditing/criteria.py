"""What is asked of a circuit, and which of it the circuit meets.

Every bound is for the end of a 95 % interval, on test pairs, which chose
nothing. A circuit is found if it meets all of these:

  sufficiency  its calibrated loss stays below its target, under every ablation
               that was asked for
  listed       with what is removed held constant wherever it is read, that loss
               is at most MOST_EXCESS larger: what is listed is what computes
  necessity    without the circuit, the model loses at least LEAST_LOSS, though
               it may have the scale and shift that suit it best
  chance       so do random circuits of the same size
  size         it has at most MOST_SHARE of the nodes or edges of the model that
               lead anywhere: the whole model meets everything else
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse_interp.circuits.faithfulness import FORMULAS
from sparse_interp.circuits.gating.ablation_names import kinds_of
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.files.verdict import Number, number

# Two-way cross-entropies in nats: ln 2 = 0.69 knows nothing.
LEAST_LOSS = 0.5
MOST_EXCESS = 0.02
MOST_SHARE = 0.1

# {number of a verdict: measure of `faithfulness`}.
_MEASURES = {
  'loss_raw': 'raw_loss',
  'loss_calibrated': 'test_loss',
  'loss_train': 'train_loss',
  'loss_full': 'full_loss',
  'probability_full': 'full_probability',
  'kl': 'test_kl',
  'kl_raw': 'raw_kl',
  'ranked_right': 'ranked_right',
  'agreement': 'agreement',
  'faithfulness': 'faithfulness',
  'listed_loss': 'listed_loss',
  'listed_loss_raw': 'raw_listed_loss',
  'listed_excess': 'listed_excess',
  'necessity_raw': 'necessity_loss',
  'necessity_calibrated': 'calibrated_necessity_loss',
  'ablated_ranked_right': 'ablated_ranked_right',
  'random_loss': 'random_loss',
  'random_loss_raw': 'raw_random_loss',
  'size_share': 'size_share',
  'droppable_nodes': 'droppable_units',
}

# {what a target is for: number of a verdict, measure}.
_JUDGED = {'task': ('loss_calibrated', 'test_loss'), 'kl': ('kl', 'test_kl')}


def numbers(
  measured: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, Number]:
  """The numbers of a verdict, with what is asked of each.

  Args:
    measured: what `faithfulness.evaluate` returned; a measure that is absent,
      as in circuits of earlier versions, has no number.
    asked: hyper-parameters of the search, fields of PruneConfig.
  """
  bounds = _bounds(asked)
  found = {}
  for name, measure in _MEASURES.items():
    if measure in measured:
      found[name] = _number(name, measure, measured, bounds)
  judged, measure = _JUDGED[asked.get('target_on', 'task')]
  for kind, losses in measured.get('under', {}).items():
    name = _under(judged, kind)
    if name in bounds and measure in losses:
      formula = f'{FORMULAS[measure]}, removed parts take: {kind}'
      ends = losses[f'{measure}_interval']
      found[name] = number(losses[measure], ends, formula, **bounds[name])
  return found


def holds_under(
  measured: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[str, ...]:
  """Ablations under which the loss that is judged keeps below the target.

  Args:
    measured: what `faithfulness.evaluate` returned.
    asked: hyper-parameters of the search.
  """
  target = asked.get('target_loss', PruneConfig.target_loss)
  _, measure = _JUDGED[asked.get('target_on', 'task')]
  return tuple(
    kind
    for kind, losses in measured.get('under', {}).items()
    if losses.get(f'{measure}_interval', [0, np.inf])[1] <= target
  )


def not_measured(
  found: Mapping[str, Number], asked: Mapping[str, Any]
) -> list[str]:
  """Names of what is asked for and has no number."""
  return [name for name in _bounds(asked) if name not in found]


def _bounds(asked: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """{number: what `verdict.number` takes}."""
  target = asked.get('target_loss', PruneConfig.target_loss)
  judged, _ = _JUDGED[asked.get('target_on', 'task')]
  _, *others = kinds_of(asked.get('ablation', PruneConfig.ablation))
  names = judged, *(_under(judged, kind) for kind in others)
  return {
    **{name: {'at_most': target} for name in names},
    'listed_excess': {'at_most': MOST_EXCESS},
    'necessity_calibrated': {'at_least': LEAST_LOSS},
    'random_loss': {'at_least': LEAST_LOSS},
    'size_share': {'at_most': MOST_SHARE},
  }


def _under(judged: str, kind: str) -> str:
  """Name of what is judged under an ablation that is not the first."""
  return f'{judged.removesuffix("_calibrated")}_{kind}'


def _number(name, measure, measured, bounds):
  value = float(measured[measure])
  ends = measured.get(f'{measure}_interval', [value, value])
  formula = FORMULAS[measure]
  return number(value, [*map(float, ends)], formula, **bounds.get(name, {}))
