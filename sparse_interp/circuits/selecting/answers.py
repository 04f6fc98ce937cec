"""What circuits answer, and the loss that searches compare with a target.

Two ways give the same: the whole model with gates, and a small one for the many
circuits inside one circuit which a search tries, where removed parts take
constants (`small_model`) or, in closed circuits, values of other prompts
(`given_model`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_interp.circuits.counting import Count
from sparse_interp.circuits.extracted import given_model, small_model
from sparse_interp.circuits.extracted.extract import shrink
from sparse_interp.circuits.extracted.small_edges import (
  gate_small_edges,
  kept_positions,
  product_into,
  source_means,
)
from sparse_interp.circuits.gating.ablation import CONSTANT, OF_OTHER_PROMPTS
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import (
  BATCH,
  all_outputs,
  can_be_kept,
  each_values_of_others,
  values_of_others,
)
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.units import Mask, Units
from sparse_interp.models.sites import edge_ends, is_matrix

# From kept units to what the circuit answers.
Answer = Callable[[Mask, Batch], Float[np.ndarray, '...']]

# Pairs that the small model answers at a time, so that one compilation serves
# a few pairs as well as all.
SOME_PAIRS = 16


def selection_loss(
  batch: Batch,
  answers: Float[Array | np.ndarray, 'size ...'],
  config: PruneConfig,
) -> float:
  """Loss that a search compares with its target.

  The mean, and so many standard errors above it: what a few pairs decide will
  be otherwise on other pairs.

  Args:
    batch: pairs or sequences.
    answers: of a circuit.
    config: says which loss, whether raw or under the best scale and shift, and
      how many standard errors.
  """
  during, kl = config.calibrate == 'during', config.target_on == 'kl'
  fitted = batch.calibrate(answers) if during else (1.0, 0.0)
  losses = np.asarray(batch.losses(answers, *fitted, kl_weight=float(kl)))
  error = losses.std() / np.sqrt(losses.size)
  return float(losses.mean() + config.standard_errors * error)


def answer_by_gates(
  units: Units, count: Count | None = None, seed: int = 0
) -> Answer:
  """Answers of circuits, by the whole model with gates.

  Args:
    units: of the model.
    count: called after every batch, see `all_outputs`.
    seed: of other prompts and subsets.
  """
  others = _of_each(lambda batch: values_of_others(units.model, batch, seed))

  def answer(keep, batch):
    gates = units.gates(keep)
    return all_outputs(units.model, gates, batch, seed, count, others(batch))

  return answer


class Inside(NamedTuple):
  """Answers of circuits inside one circuit, under each ablation of the model.

  Attributes:
    quick: by small models.
    slow: by the whole model.
  """

  quick: list[Answer]
  slow: list[Answer]

  @property
  def each(self) -> list[Answer]:
    """What is quickly seen to be missed stands first."""
    return self.quick + self.slow


def answers_inside(units: Units, keep: Mask) -> Inside:
  """Answers of circuits inside `keep` under each ablation of the model.

  What is hardest to meet is asked for last and stands first.
  """
  inside = Inside([], [])
  for one in reversed(units.by_kind()):
    kind, closed = one.model.ablation, one.model.closed
    if kind in CONSTANT:
      inside.quick.append(answer_by_small_model(one, keep))
    elif kind in OF_OTHER_PROMPTS and closed and not one.on_edges:
      inside.quick.append(answer_by_given_model(one, keep))
    else:
      inside.slow.append(answer_by_gates(one))
  return inside


def worst_loss(
  answers: Sequence[Answer],
  keep: Mask,
  batch: Batch,
  limit: float,
  config: PruneConfig,
) -> float:
  """Largest `selection_loss` of a circuit, or the first beyond a limit.

  Args:
    answers: under each ablation.
    keep: the circuit.
    batch: pairs or sequences.
    limit: beyond it, the other ablations are not looked at.
    config: see `selection_loss`.
  """
  worst = -np.inf
  for answer in answers:
    loss = selection_loss(batch, answer(keep, batch), config)
    worst = max(worst, loss)
    if worst > limit:
      break
  return float(worst)


def _of_each(compute):
  """A function of batches that is computed once for each.

  A search asks about the same few batches again and again.
  """
  batches = []

  def recall(batch):
    for known, found in batches:
      if known is batch:
        return found
    batches.append((batch, compute(batch)))
    return batches[-1][1]

  return recall


def answer_by_given_model(units: Units, keep: Mask) -> Answer:
  """Answers of closed circuits inside `keep` under values of other prompts.

  Of batches whose values are too large to be kept, the whole model answers.
  """
  by_gates = answer_by_gates(units)
  model, nodes = units.model, units.parts(keep).nodes
  given = given_model.make(model.config, model.params, nodes)

  def parts_of(batch):
    parts = []
    for i, values in enumerate(each_values_of_others(model, batch)):
      for first in range(0, BATCH, SOME_PAIRS):
        pairs = i * BATCH + first + np.arange(SOME_PAIRS)
        if pairs[0] < batch.size:
          taken = _some(values, first)
          taken = given_model.take(given, taken)
          parts.append((batch.take(pairs % batch.size), taken))
    return parts

  parts_of_batch = _of_each(parts_of)

  def answer(trial, batch):
    if not can_be_kept(model, batch):
      return by_gates(trial, batch)
    masks = units.masks(trial)
    gates = {
      site: masks[site][kept].astype(np.float32) for site, kept in nodes.items()
    }
    found = [
      np.asarray(given_model.answers(given, taken, gates, part))
      for part, taken in parts_of_batch(batch)
    ]
    return np.concatenate(found)[: batch.size]

  return answer


@jax.jit
def _some(values, first):
  """Values of SOME_PAIRS of a batch."""

  def take(x):
    rows = x.shape[0] // BATCH
    return jax.lax.dynamic_slice_in_dim(x, first * rows, SOME_PAIRS * rows)

  return jax.tree.map(take, values)


@jax.jit
def _small_answers(small, positions, means, batch, gates):
  sites = {key: gate for key, gate in gates.items() if not is_matrix(key)}
  if positions:
    for name, (_, _, number) in positions.items():
      # A node goes with its last incoming edge, as in `units.unfold`.
      _, target = edge_ends(name)
      product = product_into(small, target)
      size = 0 if product is None else product.mean.shape[0]
      best = jax.ops.segment_max(gates[name], number, size)
      sites[target] = jnp.maximum(best, 0)
    small = gate_small_edges(small, positions, means, gates)
  logits = small_model.apply(small, gates=sites, **batch.inputs())
  return batch.read(logits)


def answer_by_small_model(units: Units, keep: Mask) -> Answer:
  """Answers of circuits inside `keep`, by its small model."""
  model, parts = units.model, units.parts(keep)
  edges = parts.edges if units.on_edges else None
  small = shrink(
    model.config,
    model.params,
    parts.nodes,
    model.values,
    model.edges,
    edges,
    model.closed,
  )
  positions, means = {}, {}
  if units.on_edges:
    positions = kept_positions(small, model.edges, parts)
    means = source_means(model.config, model.values, parts)

  def parts_of(batch):
    rows = min(SOME_PAIRS, batch.size)
    return [
      batch.take((start + np.arange(rows)) % batch.size)
      for start in range(0, batch.size, rows)
    ]

  parts_of_batch = _of_each(parts_of)

  def answer(trial, batch):
    masks = units.masks(units.settle(trial))
    gates = {
      key: mask[(parts.edges if is_matrix(key) else parts.nodes)[key]]
      for key, mask in masks.items()
    }
    gates = {k: gate.astype(np.float32) for k, gate in gates.items()}
    answers = [
      np.asarray(_small_answers(small, positions, means, part, gates))
      for part in parts_of_batch(batch)
    ]
    return np.concatenate(answers)[: batch.size]

  return answer
