"""What removed parts are replaced by.

mean            the mean over pretraining text: one per node, pooled over
                sequences and positions, of the value after AbsTopK (arXiv
                2511.13653, section 2.2 and its released mean files)
task_mean       the same over training prompts of the task
zero            0
resample        the value in the full model on another prompt of the task
counterfactual  the value in the full model on the other prompt of the pair
subsets         the mean, for a random half of what was removed, drawn anew
                for every batch: two removed parts that cancel each other
                are found out when one of them comes back

Several with commas between are asked for together: each step of learning gates
draws one of them, those with larger losses more often, and a circuit has to
hold under each.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_interp.circuits.gating.ablation_names import (
  ABLATIONS,
  CONSTANT,
  OF_OTHER_PROMPTS,
  check_ablation,
  kinds_of,
)
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.models import GPT, GPTConfig, frozen, sites

__all__ = [
  'ABLATIONS',
  'CONSTANT',
  'OF_OTHER_PROMPTS',
  'check_ablation',
  'constants',
  'kinds_of',
  'task_means',
]

# Pairs or sequences per call.
_PROMPTS = 64


@functools.partial(jax.jit, static_argnames='config')
def _prompt_sums(config, params, inputs, visible):
  _, activations = GPT(config).apply({'params': params}, **inputs)
  weights = visible.astype(jnp.float32).reshape(-1)
  return {
    site: weights @ activations[site].astype(jnp.float32).reshape(-1, width)
    for site, width in sites.constant_sites(config).items()
  }


def task_means(
  config: GPTConfig, params: dict, batch: Batch
) -> dict[str, Float[Array, '_']]:
  """Mean of every node over the prompts of a task, padding left out.

  Args:
    config: the model.
    params: its parameters.
    batch: training pairs or sequences.
  """
  totals, count = {}, 0
  params = frozen.freeze(config, params)
  for start in range(0, batch.size, _PROMPTS):
    part = batch.take(np.arange(start, min(start + _PROMPTS, batch.size)))
    visible = part.visible()
    inputs = {k: v for k, v in part.inputs().items() if k != 'positions'}
    for site, total in _prompt_sums(config, params, inputs, visible).items():
      totals[site] = totals.get(site, 0) + np.asarray(total, np.float64)
    count += int(visible.sum())
  return {
    site: jnp.asarray(totals[site] / count, jnp.float32)
    for site in sites.constant_sites(config)
  }


def constants(
  config: GPTConfig,
  params: dict,
  means: Mapping[str, Float[np.ndarray | Array, '_']],
  ablation: str,
  batch: Batch,
) -> dict[str, Float[Array, '_']]:
  """The constant that each node takes under an ablation.

  Args:
    config: the model.
    params: its parameters.
    means: over pretraining text.
    ablation: one of ABLATIONS; those that take values from other prompts
      need no constants, and get the means.
    batch: training pairs or sequences, for 'task_mean'.

  Raises:
    ValueError: if the ablation is unknown.
  """
  check_ablation(ablation)
  if ablation == 'zero':
    return {s: jnp.zeros(len(mean), jnp.float32) for s, mean in means.items()}
  if ablation == 'task_mean':
    return task_means(config, params, batch)
  return {s: jnp.asarray(mean, jnp.float32) for s, mean in means.items()}
