"""Which hyper-parameters of pruning are searched, and what to try next.

Published: the parameters, the centres of their ranges and CARBS as optimiser
(arXiv 2511.13653, Table 2 and section A.5). Not published: the ranges, which
are ours, around the configuration that the search starts from.

The optimiser is Optuna's tree-structured Parzen estimator, multivariate and
with a constant liar: it is maintained, is asked and told without owning the
loop, proposes several points at once that stay apart from each other, knows
logarithmic ranges, and needs neither torch (as Optuna's Gaussian process does)
nor a server.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparse_interp.circuits.prune_config import PruneConfig

# Logarithmic ranges: how far below and above the start. They are narrow, since
# budgets on a laptop are: a few trials must already have a chance ...
_FACTORS = {
  'k_coef': 5,
  'learning_rate': 3,
  'temperature': 3,
  'init_noise_bias': 3,
  'init_noise_scale': 5,
  'weight_decay': 10,
  'inv_beta2': 3,
}
# ... but not above these, beyond which nothing changes or nothing is defined.
_CAPS = {'init_noise_bias': 1.0, 'inv_beta2': 1.0}

# Uniform ranges from 0.
_FRACTIONS = {'k_warmup_fraction': 0.9, 'warmup_fraction': 0.3}

# Trials drawn at random before the estimator takes over.
_RANDOM_TRIALS = 8


def ranges(base: PruneConfig) -> dict[str, tuple[float, float, bool]]:
  """{field of PruneConfig: lowest, highest, whether logarithmic}.

  The start is inside every range. A field that is 0 there, or below, has no
  logarithmic range and keeps its value.
  """
  found = {}
  for name, factor in _FACTORS.items():
    centre = float(getattr(base, name))
    cap = max(centre, _CAPS.get(name, np.inf))
    if centre > 0:
      found[name] = centre / factor, min(centre * factor, cap), True
  for name, highest in _FRACTIONS.items():
    found[name] = 0.0, max(highest, float(getattr(base, name))), False
  return found


def propose(
  base: PruneConfig,
  done: Sequence[tuple[Mapping[str, float], float]],
  count: int,
  seed: int,
) -> list[dict[str, float]]:
  """What to try next; a function of its arguments alone.

  The estimator is made anew from all results for every call, so that a search
  that was interrupted proposes what it would have proposed.

  Args:
    base: where the search starts; the very first proposal.
    done: parameters and objective, which is minimised, of all trials so far.
    count: number of proposals.
    seed: of the search.

  Returns:
    {field of PruneConfig: value} of each proposal.

  Raises:
    ValueError: Optuna is not installed.
  """
  optuna = _optuna()
  space = {
    name: optuna.distributions.FloatDistribution(low, high, log=logarithmic)
    for name, (low, high, logarithmic) in ranges(base).items()
  }
  state = np.random.SeedSequence([seed, len(done)]).generate_state(1)
  sampler = optuna.samplers.TPESampler(
    n_startup_trials=max(_RANDOM_TRIALS, count),
    multivariate=True,
    constant_liar=True,
    seed=int(state[0]),
  )
  study = optuna.create_study(sampler=sampler)
  for params, value in done:
    study.add_trial(
      optuna.trial.create_trial(
        params=dict(params), distributions=space, value=value
      )
    )
  if not done:
    study.enqueue_trial({name: getattr(base, name) for name in space})
  return [study.ask(space).params for _ in range(count)]


def configure(base: PruneConfig, params: Mapping[str, float]) -> PruneConfig:
  """The configuration that a proposal stands for."""
  return dataclasses.replace(base, **params)


def _optuna() -> Any:
  try:
    import optuna
  except ImportError as error:
    raise ValueError(
      f'Optuna must be installed to search hyper-parameters ({error}); run pip '
      "install -e '.[search]'."
    ) from error
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  return optuna
