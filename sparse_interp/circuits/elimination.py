"""Backward elimination: no kept unit can be left out alone.

The ranking judges a unit by its whole history beside hundreds of others; here
each is tried in the circuit that is left. Thousands of small losses are needed,
so under a constant ablation they are computed by the circuit's small model, not
by the full one. What leads nowhere, or has no effect, goes first, in one step.
"""

import functools
import heapq
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from sparse_interp.circuits.ablation import CONSTANT
from sparse_interp.circuits.answers import (
  SOME_PAIRS,
  answer_by_gates,
  answer_by_small_model,
  selection_loss,
  unfold_gates,
)
from sparse_interp.circuits.gated_model import (
  GatedModel,
  gate_slopes,
  on_edges,
  slopes_of_units,
)
from sparse_interp.circuits.moves import moves
from sparse_interp.circuits.parts import live_units, parts_of, settle
from sparse_interp.circuits.selection import flatten, split
from sparse_interp.circuits.unfinished import Unfinished, question

# Chunks smaller than this share of the units, or this number, are not worth
# another gradient: single trials take over.
_SMALLEST_CHUNK = 1 / 64, 4

# With more units than this, one pass and the first look at each have to do.
_LOOKED_AT_AGAIN = 192

# With more units than this, only chunks are dropped: it would take minutes.
_TRIED = 512

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
  model: GatedModel,
  keep: Bool[np.ndarray, 'units'],
  sizes: Mapping[str, int],
  batch: Any,
  target: float,
  calibrate: str = 'after',
  target_on: str = 'task',
  progress: Callable[[Left], None] | None = None,
  unfinished: Unfinished | None = None,
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
    progress: called with what is left, after every trial of a single move.
    unfinished: keeps the losses, and has those of the same elimination that
      was interrupted.

  Returns:
    The circuit that is left.
  """
  unfinished = unfinished or Unfinished()
  by_gates = answer_by_gates(model, sizes)
  batches = {
    'all': batch,
    'some': batch.take(np.arange(min(SOME_PAIRS, batch.size))),
  }

  def cost(answer, trial, which, *within):
    def compute():
      answers = answer(trial, batches[which])
      return selection_loss(batches[which], answers, calibrate, target_on)

    return unfinished.recall(question(f'loss {which}', trial, *within), compute)

  def cheapest(mask):
    return unfinished.recall(
      question('cheapest', mask, start), lambda: by_slope(mask)
    )

  def by_slope(mask):
    fitted = (1.0, 0.0)
    if calibrate == 'during':
      fitted = batch.calibrate(answer(mask, batch))
    gates = unfold_gates(model, split(mask.astype(np.float32), sizes))
    kl = float(target_on == 'kl')
    slope = gate_slopes(model, gates, batches['some'], *fitted, kl)
    candidates = np.flatnonzero(mask)
    gain = -flatten(slopes_of_units(slope), sizes)[candidates]
    return candidates[np.argsort(gain, kind='stable')].tolist()

  def without(mask, units):
    trial = mask.copy()
    trial[units] = False
    return settle(model, trial, sizes)

  last = None, (0, 0)

  def show(mask, number, trials):
    nonlocal last
    if progress is None:
      return
    if last[0] is not mask:  # counting takes as long as a trial
      parts = parts_of(model, mask, sizes)
      last = mask, (parts.node_count, parts.edge_count)
    pace = unfinished.seconds_per_answer()
    progress(Left(*last[1], number, None if pace is None else pace * trials))

  trial = live_units(model, keep, sizes)
  if cost(by_gates, trial, 'all') <= target:
    keep = trial
  answer, start = by_gates, keep
  if model.ablation in CONSTANT:
    answer = answer_by_small_model(model, keep, sizes)
  # Small models of other circuits round otherwise: the first one counts, too.
  loss = lambda trial: cost(answer, trial, 'all', start)  # noqa: E731
  estimate = lambda trial: cost(answer, trial, 'some', start)  # noqa: E731
  keep = _drop_chunks(keep, loss, cheapest, target, show)
  keep = settle(model, keep, sizes)
  for number in range(_PASSES if keep.sum() <= _TRIED else 0):
    before = keep
    keep = _drop_singly(
      keep,
      moves(model, keep, sizes),
      loss,
      estimate,
      without,
      _weights(model, keep, sizes),
      target,
      functools.partial(show, number=number + 1),
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
  again = keep.sum() <= _LOOKED_AT_AGAIN
  queue = []
  for number, move in enumerate(moves):
    # Each is estimated; as many of the others as so far will have to be tried.
    unseen = len(moves) - number
    show(keep, trials=unseen + len(queue) * (1 + unseen / max(number, 1)))
    trial = without(keep, move)
    # What a few pairs call hopeless is not tried on all of them.
    if estimate(trial) <= _HOPELESS * target:
      queue.append((ratio(trial), number, drops))
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
