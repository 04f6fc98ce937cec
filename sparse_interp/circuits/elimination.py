"""Backward elimination: no kept node can be left out alone.

The ranking judges a node by its whole history beside hundreds of others; here
each is tried in the circuit that is left. Thousands of small losses are needed,
so they are computed by the circuit's small model, not by the full one. What has
no way to the output, or no effect, goes first, and in one step.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits import calibration, small_model
from sparse_interp.circuits.extract import shrink
from sparse_interp.circuits.selection import flatten, gates_of, split
from sparse_interp.circuits.task_loss import (
  Pairs,
  gate_slopes,
  pair_losses,
  subtract_answers,
)
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices

Nodes = Mapping[str, Int[np.ndarray, '_']]

# Chunks smaller than this share of the nodes are not worth another gradient:
# single trials take over.
_SMALLEST_CHUNK = 1 / 16

# Passes over all nodes; one without a success ends it earlier.
_PASSES = 3

# The cost of single nodes is first estimated on so many pairs; where that
# estimate is beyond so many times the target, the node stays without a trial.
_ESTIMATE_PAIRS = 16
_HOPELESS = 2


def selection_loss(
  differences: Float[Array | np.ndarray, 'pairs 2'], calibrate: str
) -> Float[Array, '']:
  """Mean task loss, raw or ('during') under the best scale and shift."""
  if calibrate == 'during':
    return jnp.mean(pair_losses(differences, *calibration.fit(differences)))
  return jnp.mean(pair_losses(differences))


@jax.jit
def _differences(small, pairs, gates):
  """Answer logit differences of a small model under further gates."""
  tokens = pairs.tokens.reshape(-1, pairs.tokens.shape[2])
  logits = small_model.apply(small, tokens, pairs.last.reshape(-1), gates)
  return subtract_answers(logits, pairs.answers)


def unconnected(
  config: GPTConfig, params: dict, nodes: Nodes, final_resid: bool
) -> dict[str, Int[np.ndarray, '_']]:
  """Kept nodes without any way to the output through kept nodes.

  A channel added to the residual stream needs a later reader of that channel,
  a reader needs an edge to a kept node, a query or key needs a kept value in
  its head. Norms and AbsTopK let such nodes matter all the same, slightly:
  their removal has to be tried, not assumed.

  Args:
    config: the model.
    params: its parameters.
    nodes: {site: kept channels}.
    final_resid: whether the stream at the end has nodes; else all is read.
  """
  alive = {site: np.asarray(kept, int) for site, kept in nodes.items()}
  alive['final_resid'] = (
    alive['final_resid'] if final_resid else np.arange(config.d_model)
  )
  read = alive['final_resid']
  matrices = {}
  for matrix in edge_matrices(config):
    matrices.setdefault(matrix.source, []).append(matrix)

  def keep_sources(site):
    reaches = np.zeros(alive[site].size, bool)
    for matrix in matrices[site]:
      kernel = params
      for key in matrix.path:
        kernel = kernel[key]
      block = np.asarray(kernel)[:, matrix.start : matrix.stop]
      block = block[np.ix_(alive[site], alive[matrix.target])]
      reaches |= np.any(block != 0, axis=1)
    alive[site] = alive[site][reaches]

  for layer in reversed(range(config.n_layer)):
    for kind, inner in (('mlp', 'post_act'), ('attn', 'v')):
      delta = f'{layer}.{kind}.resid_delta'
      alive[delta] = np.intersect1d(alive[delta], read)
      keep_sources(f'{layer}.{kind}.{inner}')
      if kind == 'attn':
        heads = np.unique(alive[f'{layer}.attn.v'] // config.d_head)
        for name in (f'{layer}.attn.q', f'{layer}.attn.k'):
          alive[name] = alive[name][
            np.isin(alive[name] // config.d_head, heads)
          ]
      keep_sources(f'{layer}.{kind}.act_in')
      read = np.union1d(read, alive[f'{layer}.{kind}.act_in'])
  return {
    site: np.setdiff1d(kept, alive[site], assume_unique=True)
    for site, kept in nodes.items()
  }


def edges_per_node(
  config: GPTConfig, params: dict, nodes: Nodes
) -> dict[str, Int[np.ndarray, '_']]:
  """{site: number of edges to other kept nodes, of each kept node}."""
  counts = {site: np.zeros(len(kept), int) for site, kept in nodes.items()}
  for matrix in edge_matrices(config):
    kernel = params
    for key in matrix.path:
      kernel = kernel[key]
    block = np.asarray(kernel)[:, matrix.start : matrix.stop]
    block = block[np.ix_(nodes[matrix.source], nodes[matrix.target])] != 0
    counts[matrix.source] += block.sum(axis=1)
    counts[matrix.target] += block.sum(axis=0)
  return counts


def eliminate(
  config: GPTConfig,
  params: dict,
  nodes: Nodes,
  means: Mapping[str, Float[np.ndarray | Array, '_']],
  pairs: Pairs,
  target: float,
  calibrate: str = 'after',
  progress: Callable[[int, int], None] | None = None,
) -> dict[str, Int[np.ndarray, '_']]:
  """Drops nodes while the target is met, until none can be dropped alone.

  First everything unconnected, then chunks in the order of a first-order
  estimate, then single nodes, those that cost least per edge first.

  Args:
    config: the model.
    params: its parameters.
    nodes: {site: kept channels}; must meet the target.
    means: {site: values that removed nodes take}.
    pairs: training pairs.
    target: largest loss allowed.
    calibrate: 'after' or 'during', as in PruneConfig.
    progress: called with (nodes left, edges left) after every success.

  Returns:
    {site: kept channels}.
  """
  small = shrink(config, params, nodes, means)
  full = {site: len(means[site]) for site in nodes}
  means = {site: means[site] for site in nodes}
  widths = {site: len(kept) for site, kept in nodes.items()}
  kept = np.ones(sum(widths.values()), bool)

  def left(mask):
    by_site = split(mask, widths)
    return {site: nodes[site][by_site[site]] for site in nodes}

  def gates(mask):
    by_site = split(mask.astype(np.float32), widths)
    return {site: jnp.asarray(gate) for site, gate in by_site.items()}

  # One compiled shape: the estimate runs on the first of the batches.
  count = pairs.last.shape[0]
  size = min(_ESTIMATE_PAIRS, count)
  starts = range(0, count, size)
  batches = [pairs.take((start + np.arange(size)) % count) for start in starts]

  def differences(mask, batches):
    parts = [_differences(small, batch, gates(mask)) for batch in batches]
    return np.concatenate(parts)[:count]

  def loss(mask):
    return float(selection_loss(differences(mask, batches), calibrate))

  def estimate(mask):
    some = np.tile(differences(mask, batches[:1]), (len(batches), 1))
    return float(selection_loss(some[:count], calibrate))

  def slopes(mask):
    scale, shift = 1.0, 0.0
    if calibrate == 'during':
      scale, shift = calibration.fit(differences(mask, batches))
    every = gate_slopes(
      config,
      params,
      means,
      gates_of(left(mask), full),
      batches[0],
      scale,
      shift,
    )
    chosen = {site: np.asarray(every[site])[nodes[site]] for site in nodes}
    return flatten(chosen, widths)

  def show(mask):
    if progress is not None:
      edges = edges_per_node(config, params, left(mask))
      total = sum(int(count.sum()) for count in edges.values())
      progress(int(mask.sum()), total // 2)
    return mask

  loose = unconnected(config, params, nodes, 'final_resid' in nodes)
  trial = np.concatenate([~np.isin(nodes[s], loose[s]) for s in nodes])
  if loss(trial) <= target:
    kept = show(trial)
  kept = show(_drop_chunks(kept, loss, slopes, target))
  for _ in range(_PASSES):
    counts = edges_per_node(config, params, left(kept))
    weight = 1.0 + flatten(counts, left(kept))
    trial = _drop_single(kept, loss, estimate, weight, target)
    before, kept = kept, show(trial)
    if kept.sum() == before.sum():
      break
  return left(kept)


def _drop_chunks(kept, loss, slopes, target):
  """Drops the largest chunks that the first-order estimate calls cheap."""
  while True:
    candidates = np.flatnonzero(kept)
    cost = -slopes(kept)[candidates]
    candidates = candidates[np.argsort(cost, kind='stable')]
    chunk = candidates.size // 2
    while chunk >= max(2, _SMALLEST_CHUNK * candidates.size):
      trial = kept.copy()
      trial[candidates[:chunk]] = False
      if loss(trial) <= target:
        break
      chunk //= 2
    else:
      return kept
    kept = trial


def _drop_single(kept, loss, estimate, weight, target):
  """One pass over single nodes, those that cost least per edge first."""

  def without(mask, node):
    trial = mask.copy()
    trial[node] = False
    return trial

  candidates = np.flatnonzero(kept)
  now = estimate(kept)
  cost = np.array([estimate(without(kept, node)) - now for node in candidates])
  # A small offset ranks nodes that cost nothing by the edges they take along.
  ratio = (np.maximum(cost, 0) + 1e-3 * target) / weight
  # What a few pairs call hopeless is not tried on all of them.
  hopeless = now + cost > _HOPELESS * target
  for i in np.argsort(ratio, kind='stable'):
    trial = without(kept, candidates[i])
    if not hopeless[i] and loss(trial) <= target:
      kept = trial
  return kept
