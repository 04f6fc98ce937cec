"""Circuits of a compiled program, found by every method on the same footing.

Every method ranks units, `from_ranking.select` turns the ranking into the
smallest circuit that it leads to, and `greedy` drops whole component edges. All
see the training sequences of the program only. The input spaces are small, so
that all training sequences serve the search; nothing is held out from them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.ablation import constants, task_means
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.output_loss import Recorded, make_recorded
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import attribution, pruning, ranks
from sparse_interp.circuits.selecting import from_ranking
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.circuits.selecting.parted import Split
from sparse_interp.circuits.units import Mask, Units
from sparse_interp.ground_truth.compiled.components import Edge, components
from sparse_interp.ground_truth.compiled.edges import (
  component_edges,
  edge_groups,
)
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.models.sites import edge_ends, node_sites
from sparse_interp.tasks.compiled import Sequences

# {method: what it puts gates on}.
METHODS = {
  'edge_masks': 'edges',
  'node_masks': 'nodes',
  'eap': 'edges',
  'eap_ig': 'edges',
  'attribution': 'nodes',
  'random': 'edges',
}

# What the mean squared error may grow by in ACDC's Tracr test, and further
# tolerances that only rank what the first leaves.
PUBLISHED_TOLERANCE = 1e-6
TOLERANCES = (PUBLISHED_TOLERANCE, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Found(NamedTuple):
  """A circuit and the ranking that led to it.

  Attributes:
    edges: component edges of the circuit.
    weights: (matrix, row, column) of its weights.
    edge_scores: {component edge: importance}, of all pairs of components.
    weight_scores: {(matrix, row, column): importance}, of all nonzero weights.
    test_loss: of the circuit on test sequences.
  """

  edges: frozenset[Edge]
  weights: frozenset[tuple[str, int, int]]
  edge_scores: dict[Edge, float]
  weight_scores: dict[tuple[str, int, int], float]
  test_loss: float


def recorded(program: CompiledProgram, inputs: Sequences) -> Recorded:
  """Inputs with the full model's own outputs as targets."""
  return make_recorded(*inputs, program.run(*inputs))


def gate(
  program: CompiledProgram, train: Recorded, ablation: str
) -> GatedModel:
  """The program's model; constants are means over training sequences."""
  means = task_means(program.config, program.params, train)
  values = constants(program.config, program.params, means, ablation, train)
  return gated_model.make(program.config, program.params, values, ablation)


def rank(
  method: str,
  units: Units,
  train: Recorded,
  config: PruneConfig,
  seed: int,
) -> tuple[Int[np.ndarray, 'units'], int]:
  """Units from most to least important, and a size to begin a search with."""
  guess = units.count // 2
  if method in ('edge_masks', 'node_masks'):
    # Where the loss is flat, only the price would move the gates, all at once.
    learned = pruning.optimize(units, with_a_slope(train), config, seed)
    return from_ranking.rank_units(learned, units)
  if method == 'random':
    return attribution.order(attribution.random(units, seed)), guess
  data = train if method == 'eap_ig' else with_a_slope(train)
  scores = getattr(attribution, method)(units, data)
  return attribution.order(scores), guess


def with_a_slope(data: Recorded) -> Recorded:
  """The same sequences with a loss that is not flat at the full model.

  A distance from the model's own outputs has no slope there. Targets are moved
  on, twice as far from their mean: to first order the loss is then twice minus
  the agreement of outputs with the recorded ones, (o - mean) . (target - mean).
  """
  mean = np.asarray(data.targets)[np.asarray(data.visible())].mean(axis=0)
  return data._replace(targets=2 * data.targets - mean)


def find_circuit(
  program: CompiledProgram,
  method: str,
  model: GatedModel,
  train: Recorded,
  test: Recorded,
  config: PruneConfig,
  seed: int,
) -> Found:
  """One circuit by one of METHODS."""
  units = units_lib.make(model, METHODS[method])
  order, guess = rank(method, units, train, config, seed)
  everything = Split(train, train, train)
  result = from_ranking.select(units, order, guess, everything, config)
  keep, answer = result.keep, answer_by_gates(units)
  losses = test.losses(answer(keep, test))
  parts = units.parts(keep)
  final = np.zeros(program.config.d_model, bool)
  final[parts.nodes['final_resid']] = True
  kept = _as_matrices(model, parts.edges)
  scores = units.split(ranks.scores(order))
  return Found(
    component_edges(program, kept, final),
    frozenset(_entries(model, parts.edges)),
    _edge_scores(program, units, order),
    _weight_scores(model, scores),
    float(losses.mean()),
  )


def _as_matrices(model, kept):
  """Masks of nonzero weights as masks of whole matrices."""
  shapes = {
    name: tuple(node_sites(model.config)[site] for site in edge_ends(name))
    for name in kept
  }
  masks = {name: np.zeros(shape, bool) for name, shape in shapes.items()}
  for name, mask in kept.items():
    rows, columns = np.asarray(model.edges[name])[:, mask]
    masks[name][rows, columns] = True
  return masks


def _entries(model, kept):
  """(matrix, row, column) of kept nonzero weights."""
  for name, mask in kept.items():
    for row, column in np.asarray(model.edges[name])[:, mask].T.tolist():
      yield name, row, column


def _weight_scores(model, scores):
  """Of every nonzero weight; with nodes, that of its less important end."""
  result = {}
  for name, index in model.edges.items():
    rows, columns = np.asarray(index)
    if name in scores:
      values = scores[name]
    else:
      source, target = edge_ends(name)
      values = np.minimum(scores[source][rows], scores[target][columns])
    entries = zip(rows.tolist(), columns.tolist(), strict=True)
    result |= {
      (name, *entry): float(value)
      for entry, value in zip(entries, values, strict=True)
    }
  return result


def _edge_scores(program, units, order):
  """Of every pair of components: how early in the ranking it is an edge."""
  scores = dict.fromkeys(component_pairs(program), 0.0)
  possible = component_edges(program)
  missing = set(possible)
  model, keep = units.model, np.zeros(order.size, bool)
  for k, unit in enumerate(order):
    keep[unit] = True
    masks = units.split(keep)
    edges = {
      name: masks[name] if name in masks else _between(model, masks, name)
      for name in model.edges
    }
    kept = _as_matrices(model, edges)
    for edge in missing & component_edges(program, kept, masks['final_resid']):
      scores[edge] = 1 - k / order.size
      missing.discard(edge)
    if not missing:
      break
  return scores


def _between(model, masks, name):
  rows, columns = np.asarray(model.edges[name])
  source, target = edge_ends(name)
  return masks[source][rows] & masks[target][columns]


def component_pairs(program: CompiledProgram) -> list[Edge]:
  """All (writer, reader) with the writer before the reader."""
  writers, pairs = [], []
  for component in components(program.config, program.params):
    if component.reads:
      pairs += [(writer, component.name) for writer in writers]
    else:
      writers.append(component.name)
  return pairs


def greedy_edges(
  program: CompiledProgram, data: Recorded, ablation: str
) -> dict[Edge, float]:
  """Component edges by how much the mean squared error needs them.

  What `attribution.greedy` makes of the groups of `edge_groups`, under 'zero'
  or 'resample': removal changes what one component reads of another, and all
  else stays as it is computed, as in ACDC's Tracr test.

  Returns:
    {edge: tolerance of the round that dropped it, inf if never}; other pairs
    of components have no weights and score 0.
  """
  model = gate(program, data, ablation)
  units = units_lib.make(model, 'edges')
  groups = edge_groups(program)
  masks = []
  for group in groups.values():
    own = {key: np.zeros(size, bool) for key, size in units.sizes.items()}
    for key, mask in group.items():
      if key in model.edges:
        mask = mask[tuple(np.asarray(model.edges[key]))]
      own[key] = mask
    masks.append(units.flatten(own))

  def error(keep: Mask) -> float:
    gates = {
      key: jnp.asarray(unit, jnp.float32)
      for key, unit in units.split(keep).items()
    }
    answers = gated_model.all_outputs(model, gates, data)
    # The mean over outputs, as published, not in units of their variance.
    share = data.variance / data.targets.shape[2]
    return float(jnp.mean(data.losses(answers) * share))

  scores: Float[np.ndarray, 'groups'] = attribution.greedy(
    masks, error, TOLERANCES
  )
  found = dict(zip(groups, scores.tolist(), strict=True))
  return {**dict.fromkeys(component_pairs(program), 0.0), **found}


def greedily_kept(scores: Mapping[Edge, float]) -> set[Edge]:
  """What `greedy_edges` keeps at the published tolerance."""
  return {e for e, score in scores.items() if score > PUBLISHED_TOLERANCE}
