"""What circuits answer, and the loss that searches compare with a target.

Two ways give the same: the whole model with gates, and the small model of a
circuit, for the many circuits inside that one which a search tries.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sparse_interp.circuits import small_model
from sparse_interp.circuits.counting import Count
from sparse_interp.circuits.extract import shrink
from sparse_interp.circuits.gated_model import (
  GatedModel,
  all_outputs,
  gates_of_units,
  on_edges,
  unfold,
)
from sparse_interp.circuits.parts import parts_of, settle
from sparse_interp.circuits.selection import split
from sparse_interp.circuits.small_edges import (
  gate_small_edges,
  kept_positions,
  source_means,
)

# From kept units to what the circuit answers.
Answer = Callable[[Bool[np.ndarray, 'units'], Any], Float[np.ndarray, '...']]

# Pairs that the small model answers at a time, so that one compilation serves
# a few pairs as well as all.
SOME_PAIRS = 16

unfold_gates = jax.jit(unfold)


def selection_loss(
  batch: Any,
  answers: Float[Array | np.ndarray, 'size ...'],
  calibrate: str,
  target_on: str = 'task',
) -> float:
  """Mean loss that a search compares with its target.

  Args:
    batch: Pairs or Recorded.
    answers: of a circuit.
    calibrate: 'after': raw; 'during': under the best scale and shift.
    target_on: 'task' or 'kl'.
  """
  fitted = batch.calibrate(answers) if calibrate == 'during' else (1.0, 0.0)
  losses = batch.losses(answers, *fitted, kl_weight=float(target_on == 'kl'))
  return float(jnp.mean(losses))


def gates_of(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
) -> dict[str, Float[Array, '_']]:
  """Gates of the circuit that kept units make."""
  keep = settle(model, keep, sizes)
  return unfold_gates(model, split(keep.astype(np.float32), sizes))


def answer_by_gates(
  model: GatedModel, sizes: Mapping[str, int], count: Count | None = None
) -> Answer:
  """Answers of circuits, by the whole model with gates."""

  def answer(keep, batch):
    return all_outputs(model, gates_of(model, keep, sizes), batch, count=count)

  return answer


@jax.jit
def _small_answers(small, positions, means, batch, gates):
  sites = {key: gate for key, gate in gates.items() if '->' not in key}
  if positions:
    for name, (_, _, number) in positions.items():
      # A node goes with its last incoming edge, as in `gated_model.unfold`.
      target = name.split('->')[1]
      size = _kept_at(small, target)
      best = jax.ops.segment_max(gates[name], number, size)
      sites[target] = jnp.maximum(best, 0)
    small = gate_small_edges(small, positions, means, gates)
  logits = small_model.apply(small, gates=sites, **batch.inputs())
  return batch.read(logits)


def _kept_at(small, site):
  layer, kind, name = site.split('.')
  block = small.blocks[2 * int(layer) + (kind == 'mlp')]
  if name == 'resid_delta':
    return block.write.shape[0]
  linear = block.neurons if name == 'post_act' else getattr(block, name)
  return 0 if linear is None else linear.mean.shape[0]


def answer_by_small_model(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
) -> Answer:
  """Answers of circuits inside `keep`, by its small model."""
  parts = parts_of(model, keep, sizes)
  gates_on_edges = on_edges(sizes)
  edges = parts.edges if gates_on_edges else None
  small = shrink(
    model.config, model.params, parts.nodes, model.values, model.edges, edges
  )
  positions, means = {}, {}
  if gates_on_edges:
    positions = kept_positions(small, model.edges, parts)
    means = source_means(model.config, model.values, parts)

  batches = []

  def parts_of_batch(batch):
    """Cut once: a search asks about the same few batches again and again."""
    for known, cut in batches:
      if known is batch:
        return cut
    rows = min(SOME_PAIRS, batch.size)
    cut = [
      batch.take((start + np.arange(rows)) % batch.size)
      for start in range(0, batch.size, rows)
    ]
    batches.append((batch, cut))
    return cut

  def answer(trial, batch):
    masks = gates_of_units(split(settle(model, trial, sizes), sizes))
    gates = {
      key: (mask[parts.edges[key]] if '->' in key else mask[parts.nodes[key]])
      for key, mask in masks.items()
    }
    gates = {k: jnp.asarray(g, jnp.float32) for k, g in gates.items()}
    answers = [
      np.asarray(_small_answers(small, positions, means, part, gates))
      for part in parts_of_batch(batch)
    ]
    return np.concatenate(answers)[: batch.size]

  return answer
