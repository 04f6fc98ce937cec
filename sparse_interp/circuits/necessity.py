"""Makes a circuit complete: the model must not do without it.

A circuit that suffices may still leave a second way to the answer in the rest
of the model. Nodes of that second way are added, the ones whose removal is
estimated to hurt the rest most first, until the rest no longer knows.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.selection import (
  flatten,
  gates_of,
  nodes_of,
)
from sparse_interp.circuits.task_loss import (
  Pairs,
  differences_in_batches,
  gate_slopes,
  pair_losses,
)
from sparse_interp.models import GPTConfig

# A batch of pairs gives the estimates; this many rounds of them are made, and
# each adds at most so many nodes before the next.
_GRADIENT_PAIRS = 16
_ROUNDS = 16
_ADDED_PER_ROUND = 8


def add_until_necessary(
  config: GPTConfig,
  params: dict,
  nodes: Mapping[str, Int[np.ndarray, '_']],
  means: Mapping[str, Float[np.ndarray | Array, '_']],
  pairs: Pairs,
  floor: float,
) -> dict[str, Int[np.ndarray, '_']]:
  """Adds nodes until ablating the circuit raises the loss to `floor`.

  Args:
    config: the model.
    params: its parameters.
    nodes: {site: kept channels}.
    means: {site: values that removed nodes take}.
    pairs: training pairs.
    floor: loss, in nats, that the model without the circuit must reach; at
      most ln 2 can be asked of a model that is left with no preference.

  Returns:
    {site: kept channels}; the floor may be missed when rounds run out.
  """
  sites = {site: len(mean) for site, mean in means.items()}
  keep = flatten(gates_of(nodes, sites), sites) > 0
  few = pairs.take(np.arange(min(_GRADIENT_PAIRS, pairs.last.shape[0])))

  def rest_loss(keep):
    rest = gates_of(nodes_of(~keep, sites), sites)
    differences = differences_in_batches(config, params, means, rest, pairs)
    return float(jnp.mean(pair_losses(differences)))

  for _ in range(_ROUNDS):
    if rest_loss(keep) >= floor:
      break
    rest = gates_of(nodes_of(~keep, sites), sites)
    slopes = flatten(gate_slopes(config, params, means, rest, few), sites)
    gain = np.where(keep, -np.inf, -slopes)
    best = np.argsort(-gain, kind='stable')
    added = 1
    while True:
      trial = keep.copy()
      trial[best[:added]] = True
      if added >= _ADDED_PER_ROUND or rest_loss(trial) >= floor:
        break
      added *= 2
    keep = trial
  return nodes_of(keep, sites)
