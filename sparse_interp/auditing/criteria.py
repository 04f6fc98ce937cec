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
  for kind, losses in _others(measured, asked).items():
    name = f'loss_{kind}'
    formula = f'{FORMULAS["test_loss"]}, removed parts take: {kind}'
    found[name] = number(
      losses['test_loss'],
      losses['test_loss_interval'],
      formula,
      **bounds[name],
    )
  return found


def holds_under(
  measured: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[str, ...]:
  """Ablations under which the calibrated loss keeps below the target.

  Args:
    measured: what `faithfulness.evaluate` returned.
    asked: hyper-parameters of the search; its target is one for task losses,
      also where the search had one for KL.
  """
  target = asked.get('target_loss', PruneConfig.target_loss)
  return tuple(
    kind
    for kind, losses in measured.get('under', {}).items()
    if losses['test_loss_interval'][1] <= target
  )


def not_measured(
  found: Mapping[str, Number], asked: Mapping[str, Any]
) -> list[str]:
  """Names of what is asked for and has no number."""
  return [name for name in _bounds(asked) if name not in found]


def _bounds(asked: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """{number: what `verdict.number` takes}."""
  default = PruneConfig()
  target = asked.get('target_loss', default.target_loss)
  judged = 'kl' if asked.get('target_on') == 'kl' else 'loss_calibrated'
  kinds = kinds_of(asked.get('ablation', default.ablation))
  sufficient = {judged: {'at_most': target}}
  if judged != 'kl':
    sufficient |= {f'loss_{kind}': {'at_most': target} for kind in kinds[1:]}
  return {
    **sufficient,
    'listed_excess': {'at_most': MOST_EXCESS},
    'necessity_calibrated': {'at_least': LEAST_LOSS},
    'random_loss': {'at_least': LEAST_LOSS},
    'size_share': {'at_most': MOST_SHARE},
  }


def _others(measured, asked):
  """Losses under the ablations after the first, unless KL is judged."""
  if asked.get('target_on') == 'kl':
    return {}
  kinds = kinds_of(asked.get('ablation', PruneConfig.ablation))
  under = measured.get('under', {})
  return {kind: under[kind] for kind in kinds[1:] if kind in under}


def _number(name, measure, measured, bounds):
  value = float(measured[measure])
  ends = measured.get(f'{measure}_interval', [value, value])
  formula = FORMULAS[measure]
  return number(value, [*map(float, ends)], formula, **bounds.get(name, {}))
