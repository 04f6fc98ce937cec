"""Backward elimination: no kept unit can be left out alone.

The ranking judges a unit by its whole history beside hundreds of others; here
each is tried in the circuit that is left. Thousands of small losses are needed,
so they are computed by small models where there are any, and by the full one
last. What leads nowhere, or has no effect, goes first, in one step. Where most
ablations are known to the full model alone, chunks are dropped, and no single
units.
"""

import dataclasses
import functools
import heapq
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import gate_slopes
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting.answers import (
  SOME_PAIRS,
  answer_by_gates,
  answers_inside,
  worst_loss,
)
from sparse_interp.circuits.selecting.moves import moves
from sparse_interp.circuits.unfinished import Unfinished, question
from sparse_interp.circuits.units import Mask, Units
from sparse_interp.models.sites import edge_ends, is_matrix

# Chunks smaller than this share of the units, or this number, are not worth
# another gradient: single trials take over.
_SMALLEST_CHUNK = 1 / 64, 4

# With more units than this, one pass and the first look at each have to do.
_LOOKED_AT_AGAIN = 192

# With more units than this, only chunks are dropped: it would take minutes.
_TRIED = 1024

# Of more single moves than this, the cheapest are made together ...
_MANY = 64
# ... at least so many at a time.
_TOGETHER = 8

# Passes over all units; one without a success ends it earlier.
_PASSES = 3

# The cost of single units is first estimated on some pairs; where that estimate
# is beyond so many times the target, the unit stays without a trial.
_HOPELESS = 2


class Left(NamedTuple):
  """What is left of a circuit and of the work on it.

  Attributes:
    nodes: of the circuit.
    edges: of the circuit.
    number: of the pass over single moves; 0 before the first.
    seconds: that this pass will take, or what comes before it and the first, if
      trials take as long as the last ones and nothing more can be dropped: an
      estimate, since every success asks for new trials. None without any yet.
  """

  nodes: int
  edges: int
  number: int
  seconds: float | None


def eliminate(
  units: Units,
  keep: Mask,
  batch: Batch,
  target: float,
  config: PruneConfig,
  progress: Callable[[Left], None] | None = None,
  unfinished: Unfinished | None = None,
) -> Mask:
  """Drops units while the target is met, until none can be dropped alone.

  First what leads nowhere, then chunks in the order of a first-order estimate,
  then single units or the groups of `moves`, what costs least per edge first.

  Args:
    units: of the model.
    keep: the circuit; must meet the target.
    batch: training pairs or sequences.
    target: largest loss allowed.
    config: says which loss.
    progress: called with what is left, after every trial of a single move.
    unfinished: keeps the losses, and has those of the same elimination that
      was interrupted.

  Returns:
    The circuit that is left.
  """
  unfinished = unfinished or Unfinished()
  by_gates = [answer_by_gates(one) for one in reversed(units.by_kind())]
  batches = {
    'all': batch,
    'some': batch.take(np.arange(min(SOME_PAIRS, batch.size))),
  }

  # An order of single units needs no certainty.
  losses = {
    'all': config,
    'some': dataclasses.replace(config, standard_errors=0.0),
  }

  def cost(answers, trial, which, *within):
    return unfinished.recall(
      question(f'loss {which}', trial, *within),
      lambda: worst_loss(answers, trial, batches[which], target, losses[which]),
    )

  def cheapest(mask):
    return unfinished.recall(
      question('cheapest', mask, start), lambda: by_slope(mask)
    )

  def by_slope(mask):
    gates, slopes = units.unfold(mask), 0.0
    kl = float(config.target_on == 'kl')
    for one, answer in zip(reversed(units.by_kind()), by_gates, strict=True):
      fitted = (1.0, 0.0)
      if config.calibrate == 'during':
        fitted = batch.calibrate(answer(mask, batch))
      found = gate_slopes(one.model, gates, batches['some'], *fitted, kl)
      slopes = slopes + one.slopes(found)
    candidates = np.flatnonzero(mask)
    gain = -slopes[candidates]
    return candidates[np.argsort(gain, kind='stable')].tolist()

  def without(mask, move):
    trial = mask.copy()
    trial[move] = False
    return units.settle(trial)

  last = None, (0, 0)

  def show(mask, number, trials):
    nonlocal last
    if progress is None:
      return
    if last[0] is not mask:  # counting takes as long as a trial
      parts = units.parts(mask)
      last = mask, (parts.node_count, parts.edge_count)
    pace = unfinished.seconds_per_answer()
    progress(Left(*last[1], number, None if pace is None else pace * trials))

  trial = units.live(keep)
  if cost(by_gates, trial, 'all') <= target:
    keep = trial
  inside, start = answers_inside(units, keep), keep
  # Small models of other circuits round otherwise: the first one counts, too.
  loss = lambda trial: cost(inside.each, trial, 'all', start)  # noqa: E731
  quick = inside.quick or inside.slow
  estimate = lambda trial: cost(quick, trial, 'some', start)  # noqa: E731
  keep = _drop_chunks(keep, loss, cheapest, target, show)
  keep = units.settle(keep)
  if len(inside.slow) > 1:
    return keep
  for number in range(_PASSES if keep.sum() <= _TRIED else 0):
    before = keep
    keep = _drop_singly(
      keep,
      moves(units, keep),
      loss,
      estimate,
      without,
      _weights(units, keep),
      target,
      functools.partial(show, number=number + 1),
    )
    if keep.sum() == before.sum() or keep.sum() > _LOOKED_AT_AGAIN:
      break
  return keep


def _weights(units, keep):
  """What each unit counts for: the edges that go with it, and a little."""
  if units.on_edges:
    weight = {
      key: np.full(size, 1.0 if is_matrix(key) else 0.5)
      for key, size in units.sizes.items()
    }
    return units.flatten(weight)
  weight = {key: np.ones(size) for key, size in units.sizes.items()}
  for name, kept in units.parts(keep).edges.items():
    ends = np.asarray(units.model.edges[name])[:, kept]
    for site, channels in zip(edge_ends(name), ends, strict=True):
      np.add.at(weight[units.key_of(site)], channels, 1)
  return units.flatten(weight)


def _drop_chunks(keep, loss, cheapest, target, show):
  """Drops the largest chunks that the first-order estimate calls cheap."""
  while True:
    candidates = cheapest(keep)
    chunk = len(candidates) // 2
    share, number = _SMALLEST_CHUNK
    sizes = []
    while chunk >= max(number, share * len(candidates)):
      sizes.append(chunk)
      chunk //= 2
    for i, chunk in enumerate(sizes):
      singly = len(candidates) if len(candidates) <= _TRIED else 0
      show(keep, number=0, trials=len(sizes) - i + 2 * singly)
      trial = keep.copy()
      trial[candidates[:chunk]] = False
      if loss(trial) <= target:
        break
    else:
      return keep
    keep = trial


def _drop_singly(keep, moves, loss, estimate, without, weight, target, show):
  """Makes single moves, at each time the one that costs least per edge.

  Costs change as the circuit shrinks, mostly upwards. The move that was lowest
  when last seen is looked at again, until the lowest is up to date.
  """

  def ratio(trial):
    # A small offset ranks moves that cost nothing by what they take along.
    cost = max(estimate(trial) - now, 0) + 1e-3 * target
    return cost / weight[keep & ~trial].sum()

  now, drops = estimate(keep), 0
  queue = []
  for number, move in enumerate(moves):
    # Each is estimated; as many of the others as so far will have to be tried.
    unseen = len(moves) - number
    show(keep, trials=unseen + len(queue) * (1 + unseen / max(number, 1)))
    trial = without(keep, move)
    # What a few pairs call hopeless is not tried on all of them.
    if estimate(trial) <= _HOPELESS * target:
      queue.append((ratio(trial), number, drops))
  first = keep
  keep, queue = _drop_together(keep, queue, moves, loss, without, target, show)
  if keep is not first:
    drops, now = 1, estimate(keep)
  again = keep.sum() <= _LOOKED_AT_AGAIN
  heapq.heapify(queue)
  while queue:
    show(keep, trials=len(queue))
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


def _drop_together(keep, queue, moves, loss, without, target, show):
  """Makes the cheapest of many moves at once; what is left of the queue, too.

  Each time they may take half of what the loss is still below the target.
  """
  queue = sorted(queue)
  size = len(queue) // 2
  while len(queue) > _MANY and size >= _TOGETHER:
    show(keep, trials=len(queue))
    chosen = [moves[number] for _, number, _ in queue[:size]]
    trial = without(keep, np.concatenate(chosen))
    if loss(trial) <= (loss(keep) + target) / 2:
      keep, queue = trial, queue[size:]
      size = len(queue) // 2
    else:
      size //= 2
  return keep, queue
