"""Is the circuit the behaviour? Measures that say so, with intervals.

Losses are task losses (see `task_loss`) in nats: ln 2 = 0.69 knows nothing.
FORMULAS says what each measure is. Scale and shift are fitted on training
pairs; every loss stands beside its raw one. Where fits are bounded, the circuit
has to do with the shift that would centre the full model, while the model
without it and random circuits may have any: a bias is no ignorance. Removed
parts take what the first of the model's ablations says; `under` has the losses
under each of them, and under those that were not asked for. Intervals are 95 %,
see `intervals`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sparse_interp.circuits import intervals
from sparse_interp.circuits.counting import Progress, counting
from sparse_interp.circuits.gating.ablation_names import (
  OF_OTHER_PROMPTS,
  TOGETHER,
)
from sparse_interp.circuits.gating.gated_model import all_outputs
from sparse_interp.circuits.gating.losses import kl_losses, pair_losses
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.circuits.selecting.drawn import (
  drawn_answers,
  draws,
  interval,
)
from sparse_interp.circuits.solving import by_condition, evaluate_model, mean_of
from sparse_interp.circuits.units import Mask, Units

FORMULAS = {
  'full_loss': 'task loss of the full model, test pairs',
  'full_probability': 'probability of the right answer among all tokens, full '
  'model, mean over the prompts of the test pairs',
  'test_loss': 'task loss of the circuit with scale and shift, test pairs',
  'raw_loss': 'the same with scale 1 and shift 0',
  'train_loss': 'test_loss on the train pairs that scale and shift were '
  'fitted to',
  'test_kl': 'KL(full model || circuit) over the two answers, test pairs, with '
  'scale and shift',
  'raw_kl': 'test_kl with scale 1 and shift 0',
  'ranked_right': 'share of test pairs whose side a has the larger logit '
  'difference of the answers (a against b), circuit; ties count half',
  'agreement': 'share of prompts of test pairs on which circuit and full model '
  'prefer the same answer, without scale and shift',
  'faithfulness': '(m(circuit) - m(nothing kept)) / (m(full model) - m(nothing '
  'kept)) with m the mean of the difference of side a minus that of side b',
  'listed_loss': 'test_loss with what is removed constant wherever it is read: '
  'only listed nodes and edges compute',
  'raw_listed_loss': 'listed_loss with scale 1 and shift 0',
  'listed_excess': 'listed_loss - test_loss',
  'necessity_loss': 'task loss of the full model with the circuit ablated, '
  'test pairs, with scale 1 and shift 0',
  'calibrated_necessity_loss': 'the same with scale and shift of its own, '
  'fitted on train pairs',
  'ablated_ranked_right': 'ranked_right of the full model with the circuit '
  'ablated; 0.5 is chance',
  'random_loss': 'task loss of random circuits of the same size per site '
  'or matrix, each with its own scale and shift, mean over draws',
  'raw_random_loss': 'random_loss with scale 1 and shift 0',
  'size_share': 'kept nodes, or edges where gates are on edges, as a share of '
  'those of the model that lead anywhere',
  'droppable_units': 'kept units of which each could be left out alone, on the '
  'pairs of the search, within the bounds of the search',
  'interval': '95 % over pairs (BCa bootstrap); of random circuits, and under '
  'subsets, over pairs and draws',
}


def evaluate(
  units: Units,
  keep: Mask,
  calibrated: tuple[float, float],
  train: Pairs,
  test: Pairs,
  conditions: Sequence[str],
  seed: int,
  random_circuits: int = 8,
  progress: Progress | None = None,
  bounded: bool = False,
) -> dict[str, Any]:
  """Every measure of a circuit that FORMULAS names.

  Args:
    units: of the model with its ablations.
    keep: which of them are the circuit.
    calibrated: scale and shift of the circuit.
    train: pairs on which it was calibrated, and all others will be.
    test: pairs that nothing was fitted to.
    conditions: of each test pair.
    seed: of bootstrap and random circuits.
    random_circuits: how many are drawn, at least two.
    progress: called now and then with what there is to show.
    bounded: whether the fits of what the circuit is compared with keep their
      scale within bounds; their shift is free.
  """
  first = units.by_kind()[0]
  kinds = _kinds(units)
  passes = 5 + sum(map(draws, kinds)) + random_circuits
  count = counting(progress, 'measure', passes=passes)
  model, answer = first.model, answer_by_gates(first)
  answer_test = answer_by_gates(first, count)
  full = all_outputs(model, {}, test, count=count)
  on_test = answer_test(keep, test)
  nothing = answer_test(np.zeros_like(keep), test)
  rest = all_outputs(model, first.gates_of_rest(keep), test, count=count)
  any_shift = np.inf if bounded else None
  rest_fitted = train.calibrate(
    all_outputs(model, first.gates_of_rest(keep), train), any_shift
  )
  closed = first.on(dataclasses.replace(model, closed=True))
  listed = on_test if model.closed else answer_by_gates(closed)(keep, test)
  # Seeds of different circuits are far apart, whatever `seed` is.
  drawn = [
    first.random_like(keep, seed + 1000 * (i + 1))
    for i in range(random_circuits)
  ]
  random = _random(first, drawn, train, test, any_shift, count)
  losses = {
    'test_loss': pair_losses(on_test, *calibrated),
    'raw_loss': pair_losses(on_test),
    'test_kl': kl_losses(on_test, full, *calibrated),
    'raw_kl': kl_losses(on_test, full),
    'train_loss': pair_losses(answer(keep, train), *calibrated),
    'listed_loss': pair_losses(listed, *calibrated),
    'listed_excess': pair_losses(listed, *calibrated)
    - pair_losses(on_test, *calibrated),
    'raw_listed_loss': pair_losses(listed),
    'necessity_loss': pair_losses(rest),
    'calibrated_necessity_loss': pair_losses(rest, *rest_fitted),
  }
  by_name = {name: np.asarray(found) for name, found in losses.items()}
  metrics = evaluate_model(model, test, conditions, seed, count)
  for name, found in by_name.items():
    metrics |= mean_of(name, found, seed)
  for name, found in (
    ('ranked_right', ranked_right(on_test)),
    ('ablated_ranked_right', ranked_right(rest)),
    ('agreement', np.mean((on_test > 0) == (full > 0), axis=1)),
  ):
    metrics[name] = float(np.mean(found))
    metrics[f'{name}_interval'] = intervals.of_share(found, seed)
  return {
    **metrics,
    **_faithfulness(on_test, nothing, full, seed),
    **random,
    'size_share': _share(units, keep),
    'under': _under(kinds, keep, calibrated, test, full, seed, count),
    'test_conditions': by_condition(by_name['test_loss'], conditions),
    'random_circuits': random_circuits,
    'test_pairs': test.size,
  }


def ranked_right(
  differences: Float[np.ndarray, 'pairs 2'],
) -> Float[np.ndarray, 'pairs']:
  """1 where side a prefers its own answer more than side b does, 0.5 for ties.

  No scale and no shift can change it.
  """
  ahead = differences[:, 0] - differences[:, 1]
  return (np.sign(ahead) + 1) / 2


def _share(units, keep):
  """How much of what leads anywhere in the model is kept."""
  kept, all_live = (
    units.parts(mask) for mask in (keep, units.live(np.ones_like(keep)))
  )
  if units.on_edges:
    return kept.edge_count / max(1, all_live.edge_count)
  return kept.node_count / max(1, all_live.node_count)


def _random(units, drawn, train, test, most_shift, count):
  """Losses of random circuits."""
  answer, raw, fitted = answer_by_gates(units), [], []
  for chosen in drawn:
    calibrated = train.calibrate(answer(chosen, train), most_shift)
    by_chance = answer_by_gates(units, count)(chosen, test)
    fitted.append(np.asarray(pair_losses(by_chance, *calibrated)))
    raw.append(np.asarray(pair_losses(by_chance)))
  found = {}
  for name, losses in (('random_loss', fitted), ('raw_random_loss', raw)):
    found[name] = float(np.mean(losses))
    found[f'{name}_interval'] = intervals.over_draws(np.stack(losses))
  return found


def _faithfulness(circuit, nothing, full, seed):
  """Normalised; nothing where the full model is no better than nothing."""
  lead = [one[:, 0] - one[:, 1] for one in (circuit, nothing, full)]
  ahead = [lead[0] - lead[1], lead[2] - lead[1]]
  ratio = lambda a, b, axis: np.mean(a, axis) / np.mean(b, axis)  # noqa: E731
  if not np.mean(ahead[1]) > 0:
    return {}
  return {
    'faithfulness': float(ratio(*ahead, axis=0)),
    'faithfulness_interval': intervals.of_statistic(tuple(ahead), ratio, seed),
  }


def _kinds(units):
  """The units under the ablations asked for, and all others that there are."""
  asked = units.model.kinds
  others = TOGETHER if asked[0] in TOGETHER else OF_OTHER_PROMPTS
  kinds = dict.fromkeys((*asked, *others))
  return [units.on(units.model.under(kind)) for kind in kinds]


def _under(kinds, keep, calibrated, test, full, seed, count):
  """{ablation: losses of the circuit under it}."""
  found = {}
  for one in kinds:
    drawn = list(drawn_answers(one, keep, test, count))
    measures = {
      'test_loss': lambda answers: pair_losses(answers, *calibrated),
      'raw_loss': pair_losses,
      'test_kl': lambda answers: kl_losses(answers, full, *calibrated),
    }
    ranked = [np.mean(ranked_right(answers)) for answers in drawn]
    own = {'ranked_right': float(np.mean(ranked))}
    for name, measure in measures.items():
      losses = np.stack([np.asarray(measure(answers)) for answers in drawn])
      own[name] = float(losses.mean())
      own[f'{name}_interval'] = interval(losses, seed)
    found[one.model.ablation] = own
  return found
