"""Hyper-parameters of pruning, validated."""

import dataclasses
from typing import Any

from sparse_interp.circuits.gating.ablation_names import check_ablation
from sparse_interp.models.config import PRODUCTS

_CHOICES = {
  'gates': ('nodes', 'edges'),
  'calibrate': ('after', 'during'),
  'target_on': ('task', 'kl'),
  'products': PRODUCTS,
}


# What a recipe has in place of the defaults. The published one learns gates
# under mean ablation at a constant price, bisects their ranking on raw losses
# and fits scale and shift freely at the end. Where it searches for its price
# and learning rate in 256 runs per task, numbers stand that we chose for the
# mean; several ablations together ask for a lower price and more steps.
RECIPES = {
  'closed': {},
  'published': {
    'ablation': 'mean',
    'closed': False,
    'steps': 160,
    'k_coef': 5e-3,
    'k_warmup_fraction': 0.0,
    'init_attribution': 0.0,
    'margin': 0.0,
    'standard_errors': 0.0,
    'attempts': 1,
    'calibrate': 'after',
    'bounded': False,
    'eliminate': False,
    'min_necessity': None,
  },
}


@dataclasses.dataclass(frozen=True)
class PruneConfig:
  """Hyper-parameters of pruning, with the published names where they exist.

  The defaults are those of the quickstart; experiments say where they differ.

  Attributes:
    recipe: one of RECIPES. 'closed' is that of these defaults. 'published' puts
      what it has in place of every field that is at its default; a field with
      another value keeps it.
    gates: what carries a gate, 'nodes' (published) or 'edges'.
    tie_qk: with nodes, one gate for the same channel of queries and keys.
    ablation: what removed parts take, one of those in `ablation`, or several
      with commas between: a circuit must reach its target under each.
    closed: whether what is removed is constant wherever it is read (see
      `gates.apply_gates`), so that only what is listed computes. In the
      published method it is not.
    kl_weight: share of KL to the full model's answers in the loss that gates
      are learned with; the rest is the task loss (published: all of it).
    target_on: loss that the target is for, 'task' or 'kl'.
    steps: optimisation steps.
    batch_pairs: pairs of prompts per step.
    k_coef: price of one active unit, in nats.
    k_warmup_fraction: share of the steps over which that price rises from 0.
      Where the full model is sure, the task gives no gradient at first, and a
      full price would switch off important nodes with all others. 0 is the
      published constant price.
    init_noise_scale: standard deviation of the initial tau.
    init_noise_bias: mean of the initial tau; positive, so all start on.
    init_attribution: how much higher tau starts where integrated attribution
      (`attribution.eap_ig`) ranks a unit first; falls with the logarithm of
      the rank, to 0 for the last. A sharp circuit, which fails as a whole when
      one of its parts does, gives gates no gradient to go by: its parts must
      not be switched off first. 0 is the published start.
    weight_decay: decoupled, times the learning rate.
    learning_rate: peak of the schedule.
    warmup_fraction: share of the steps with a linear warm-up.
    beta1: decay of Adam's first moment.
    inv_beta2: 1 - decay of Adam's second moment.
    temperature: of the surrogate gradient.
    clip: largest global norm of a gradient.
    final_resid: whether the residual stream before the last norm has gates.
    target_loss: task loss that a circuit must reach, in nats.
    least_probability: that the full model must give the right answer among all
      tokens, on average: a model that never gives either of two answers knows a
      fact about two logits, and has no behaviour.
    margin: how far below the target the search stays on the pairs it sees, so
      that unseen pairs reach the target, too.
    standard_errors: of the mean loss on the pairs it sees, how many the search
      adds: a circuit is found by the end of its interval on other pairs.
    selection_pairs: training pairs on which the search measures the loss.
    holdout_pairs: further training pairs, seen by neither optimisation nor
      search: where they miss the target, the search starts over with a wider
      margin.
    attempts: how often it may do so.
    calibrate: 'after': gates are learned and the search measures its loss on
      the raw logits, scale and shift are fitted at the end (published);
      'during': gates are learned together with a scale and a shift, and the
      search measures its loss under the best ones.
    bounded: whether the fit at the end, and those of what a circuit is compared
      with, keep within the bounds of `calibration`. The published fit is free.
    eliminate: after the bisection, also try every kept node alone.
    min_necessity: task loss that the full model must rise to on the selection
      pairs when the circuit is ablated from it, under a scale and a shift of
      its own where fits are bounded; nodes are added until it does. None asks
      for nothing.
    products: how the model multiplies with its weights: with all of them
      ('dense'), with the nonzero ones ('row_sparse'), or with these where
      that is known to be faster ('auto').
  """

  recipe: str = 'closed'
  gates: str = 'nodes'
  tie_qk: bool = False
  ablation: str = 'mean,subsets,resample,counterfactual'
  closed: bool = True
  kl_weight: float = 0.0
  target_on: str = 'task'
  steps: int = 320
  batch_pairs: int = 16
  k_coef: float = 1e-3
  k_warmup_fraction: float = 0.5
  init_noise_scale: float = 1e-2
  init_noise_bias: float = 1e-1
  init_attribution: float = 0.5
  weight_decay: float = 1e-3
  learning_rate: float = 3e-2
  warmup_fraction: float = 5e-2
  beta1: float = 0.9
  inv_beta2: float = 5e-2
  temperature: float = 1.0
  clip: float = 1.0
  final_resid: bool = True
  target_loss: float = 0.15
  least_probability: float = 0.1
  margin: float = 0.03
  standard_errors: float = 2.0
  selection_pairs: int = 128
  holdout_pairs: int = 192
  attempts: int = 3
  calibrate: str = 'after'
  bounded: bool = True
  eliminate: bool = True
  min_necessity: float | None = 0.55
  products: str = 'auto'

  def __post_init__(self):
    _require(
      'recipe', self.recipe in RECIPES, self, f'one of {", ".join(RECIPES)}'
    )
    for field, value in RECIPES[self.recipe].items():
      if getattr(self, field) == _default(field):
        object.__setattr__(self, field, value)
    for field in ('steps', 'batch_pairs', 'selection_pairs', 'attempts'):
      _require(field, getattr(self, field) >= 1, self, 'at least 1')
    for field in ('learning_rate', 'temperature', 'clip', 'target_loss'):
      _require(field, getattr(self, field) > 0, self, 'positive')
    nonnegative = (
      'k_coef weight_decay init_noise_scale init_attribution margin '
      'standard_errors'
    )
    for field in nonnegative.split():
      _require(field, getattr(self, field) >= 0, self, 'at least 0')
    for field in ('beta1', 'warmup_fraction', 'k_warmup_fraction'):
      _require(field, 0 <= getattr(self, field) < 1, self, 'in [0, 1)')
    _require('holdout_pairs', self.holdout_pairs >= 0, self, 'at least 0')
    _require('inv_beta2', 0 < self.inv_beta2 <= 1, self, 'in (0, 1]')
    _require('margin', self.margin < self.target_loss, self, 'below the target')
    possible = 0 <= self.least_probability <= 1
    _require('least_probability', possible, self, 'in [0, 1]')
    _require('kl_weight', 0 <= self.kl_weight <= 1, self, 'in [0, 1]')
    for field, choices in _CHOICES.items():
      value = getattr(self, field)
      _require(field, value in choices, self, 'one of ' + ', '.join(choices))
    check_ablation(self.ablation)
    tied = self.tie_qk and self.gates == 'edges'
    _require('tie_qk', not tied, self, 'False with gates on edges')


def _default(field: str) -> Any:
  return PruneConfig.__dataclass_fields__[field].default


def _require(field: str, holds: bool, config: PruneConfig, constraint: str):
  if not holds:
    raise ValueError(
      f'{field} must be {constraint}, got {getattr(config, field)!r}; '
      f'choose e.g. {_default(field)!r}.'
    )
