"""Backward elimination: no kept unit can be left out alone.

The ranking judges a unit by its whole history beside hundreds of others; here
each is tried in the circuit that is left. Thousands of small losses are needed,
so under a constant ablation they are computed by the circuit's small model, not
by the full one. What leads nowhere, or has no effect, goes first, in one step.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sparse_interp.circuits import small_model
from sparse_interp.circuits.ablation import CONSTANT
from sparse_interp.circuits.extract import shrink
from sparse_interp.circuits.gated_model import (
  GatedModel,
  all_outputs,
  gate_slopes,
  gates_of_units,
  on_edges,
  slopes_of_units,
  unfold,
)
from sparse_interp.circuits.moves import moves
from sparse_interp.circuits.parts import live_units, parts_of, settle
from sparse_interp.circuits.selection import flatten, split
from sparse_interp.circuits.small_edges import (
  gate_small_edges,
  kept_positions,
  source_means,
)

# From kept units to what the circuit answers.
Answer = Callable[[Bool[np.ndarray, 'units'], Any], Float[np.ndarray, '...']]

# Chunks smaller than this share of the units, or this number, are not worth
# another gradient: single trials take over.
_SMALLEST_CHUNK = 1 / 64, 4

# With more units than this, one pass and the first look at each have to do.
_LOOKED_AT_AGAIN = 192

# With more units than this, only chunks are dropped: it would take minutes.
_TRIED = 512

# Passes over all units; one without a success ends it earlier.
_PASSES = 3

# The cost of single units is first estimated on so many pairs; where that
# estimate is beyond so many times the target, the unit stays without a trial.
_ESTIMATE_PAIRS = 16
_HOPELESS = 2


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


def answer_by_gates(model: GatedModel, sizes: Mapping[str, int]) -> Answer:
  """Answers of circuits, by the whole model with gates."""

  def answer(keep, batch):
    keep = settle(model, keep, sizes)
    units = split(keep.astype(np.float32), sizes)
    return all_outputs(model, _unfold(model, units), batch)

  return answer


_unfold = jax.jit(unfold)


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
    rows = min(_ESTIMATE_PAIRS, batch.size)
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


def eliminate(
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
  batch: Any,
  target: float,
  calibrate: str = 'after',
  target_on: str = 'task',
  progress: Callable[[int, int], None] | None = None,
) -> Bool[np.ndarray, 'units']:
  """Drops units while the target is met, until none can be dropped alone.

  First what leads nowhere, then chunks in the order of a first-order estimate,
  then single units or the groups of `moves`, what costs least per edge first.

  Args:
    model: the model with its ablation.
    keep: the circuit; must meet the target.
    sizes: {key: number of units}.
    batch: training pairs or sequences.
    target: largest loss allowed.
    calibrate: 'after' or 'during', as in PruneConfig.
    target_on: 'task' or 'kl', as in PruneConfig.
    progress: called with (nodes left, edges left) after every success.

  Returns:
    The circuit that is left.
  """
  by_gates = answer_by_gates(model, sizes)
  some = batch.take(np.arange(min(_ESTIMATE_PAIRS, batch.size)))

  def cost(answer, trial, batch):
    answers = answer(trial, batch)
    return selection_loss(batch, answers, calibrate, target_on)

  def slopes(mask):
    fitted = (1.0, 0.0)
    if calibrate == 'during':
      fitted = batch.calibrate(answer(mask, batch))
    gates = _unfold(model, split(mask.astype(np.float32), sizes))
    slope = gate_slopes(model, gates, some, *fitted, float(target_on == 'kl'))
    return flatten(slopes_of_units(slope), sizes)

  def without(mask, units):
    trial = mask.copy()
    trial[units] = False
    return settle(model, trial, sizes)

  def show(mask):
    if progress is not None:
      parts = parts_of(model, mask, sizes)
      progress(parts.node_count, parts.edge_count)
    return mask

  trial = live_units(model, keep, sizes)
  if cost(by_gates, trial, batch) <= target:
    keep = show(trial)
  answer = by_gates
  if model.ablation in CONSTANT:
    answer = answer_by_small_model(model, keep, sizes)
  loss = lambda trial: cost(answer, trial, batch)  # noqa: E731
  estimate = lambda trial: cost(answer, trial, some)  # noqa: E731
  keep = _drop_chunks(keep, loss, slopes, target)
  keep = show(settle(model, keep, sizes))
  for _ in range(_PASSES if keep.sum() <= _TRIED else 0):
    before = keep
    keep = show(
      _drop_singly(
        keep,
        moves(model, keep, sizes),
        loss,
        estimate,
        without,
        _weights(model, keep, sizes),
        target,
      )
    )
    if keep.sum() == before.sum() or keep.sum() > _LOOKED_AT_AGAIN:
      break
  return keep


def _weights(model, keep, sizes):
  """What each unit counts for: the edges that go with it, and a little."""
  if on_edges(sizes):
    weight = {
      k: np.full(n, 1.0 if '->' in k else 0.5) for k, n in sizes.items()
    }
    return flatten(weight, sizes)
  weight = {key: np.ones(size) for key, size in sizes.items()}
  parts = parts_of(model, keep, sizes)
  for name, kept in parts.edges.items():
    ends = np.asarray(model.edges[name])[:, kept]
    for site, channels in zip(name.split('->'), ends, strict=True):
      key = site if site in sizes else site[:-1].replace('attn.', 'attn.qk')
      np.add.at(weight[key], channels, 1)
  return flatten(weight, sizes)


def _drop_chunks(keep, loss, slopes, target):
  """Drops the largest chunks that the first-order estimate calls cheap."""
  while True:
    candidates = np.flatnonzero(keep)
    cost = -slopes(keep)[candidates]
    candidates = candidates[np.argsort(cost, kind='stable')]
    chunk = candidates.size // 2
    share, number = _SMALLEST_CHUNK
    while chunk >= max(number, share * candidates.size):
      trial = keep.copy()
      trial[candidates[:chunk]] = False
      if loss(trial) <= target:
        break
      chunk //= 2
    else:
      return keep
    keep = trial


def _drop_singly(keep, moves, loss, estimate, without, weight, target):
  """Makes single moves, at each time the one that costs least per edge.

  Costs change as the circuit shrinks, mostly upwards. The move that was lowest
  when last seen is looked at again, until the lowest is up to date.
  """

  def ratio(trial):
    # A small offset ranks moves that cost nothing by what they take along.
    cost = max(estimate(trial) - now, 0) + 1e-3 * target
    return cost / weight[keep & ~trial].sum()

  now, drops = estimate(keep), 0
  again = keep.sum() <= _LOOKED_AT_AGAIN
  queue = []
  for number, move in enumerate(moves):
    trial = without(keep, move)
    # What a few pairs call hopeless is not tried on all of them.
    if estimate(trial) <= _HOPELESS * target:
      queue.append((ratio(trial), number, drops))
  heapq.heapify(queue)
  while queue:
    _, number, seen = heapq.heappop(queue)
    trial = without(keep, moves[number])
    if np.array_equal(trial, keep):
      continue
    if seen < drops and again:
      heapq.heappush(queue, (ratio(trial), number, drops))
    elif loss(trial) <= target:
      keep, drops = trial, drops + 1
      now = estimate(keep)
  return keep
