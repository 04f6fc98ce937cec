"""A model whose parts carry gates: what everything in this room runs.

A unit is what one learned number decides: a node, an edge, or with tied
queries and keys the same channel of both. Units unfold into gates on sites and
matrices, and gates into parameters and edits of a model call.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from sparse_interp.circuits.ablation import OF_OTHER_PROMPTS, check_ablation
from sparse_interp.circuits.counting import Count
from sparse_interp.circuits.gates import (
  EdgeIndex,
  EdgeSlots,
  Gates,
  Values,
  apply_gates,
  edge_slots,
  nonzero_weights,
)
from sparse_interp.models import GPT, GPTConfig, frozen
from sparse_interp.models.sites import node_sites

# {key: one number per unit}; keys are sites, matrices, or `{layer}.attn.qk`.
Units = Mapping[str, Float[Array | np.ndarray, '_']]

# Every batch of pairs or sequences runs in this shape.
BATCH = 32

# Share of the removed parts that come back in each draw of random subsets.
_RESTORED = 0.5


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['params', 'values', 'edges', 'frozen', 'slots'],
  meta_fields=['config', 'ablation'],
)
@dataclasses.dataclass(frozen=True)
class GatedModel:
  """A model, what removed parts take, and where its nonzero weights are.

  Attributes:
    config: the model.
    params: its parameters.
    values: {site: what removed nodes take}, as from `ablation.constants`.
    edges: {matrix name: rows and columns of nonzero weights}.
    frozen: the parameters as the model runs on them, from `models.frozen`.
    slots: {matrix name: places of its weights in a frozen kernel}.
    ablation: one of `ablation.ABLATIONS`.
  """

  config: GPTConfig
  params: dict
  values: Values
  edges: EdgeIndex
  frozen: dict
  slots: EdgeSlots
  ablation: str = 'mean'


def make(
  config: GPTConfig,
  params: dict,
  values: Values,
  ablation: str = 'mean',
  products: str = 'auto',
) -> GatedModel:
  """Gathers a model and its nonzero weights.

  Args:
    config: the model.
    params: its parameters.
    values: {site: what removed nodes take}.
    ablation: one of `ablation.ABLATIONS`.
    products: how it multiplies with its weights, one of `frozen.PRODUCTS`.

  Raises:
    ValueError: if the ablation or the products are unknown.
  """
  check_ablation(ablation)
  edges = nonzero_weights(config, params)
  values = {site: jnp.asarray(value) for site, value in values.items()}
  running = frozen.freeze(config, params, products)
  slots = edge_slots(config, running)
  return GatedModel(config, params, values, edges, running, slots, ablation)


def unit_sizes(
  model: GatedModel, gates: str, final_resid: bool = True, tie_qk: bool = False
) -> dict[str, int]:
  """{key: number of units}, in the order of the forward pass.

  Args:
    model: the model.
    gates: 'nodes' or 'edges'; with edges, the stream before the last norm
      keeps gates on its nodes, since no edge reads it.
    final_resid: whether that stream has gates at all.
    tie_qk: one unit for the same channel of queries and keys; nodes only.
  """
  sizes = {}
  if gates == 'edges':
    sizes = {name: index.shape[1] for name, index in model.edges.items()}
    if final_resid:
      sizes['final_resid'] = model.config.d_model
    return sizes
  for site, width in node_sites(model.config, final_resid).items():
    if tie_qk and site.endswith('attn.k'):
      continue
    if tie_qk and site.endswith('attn.q'):
      site = site.replace('attn.q', 'attn.qk')
    sizes[site] = width
  return sizes


def on_edges(sizes: Mapping[str, int]) -> bool:
  """Whether units are edges, as opposed to nodes."""
  return any('->' in key for key in sizes)


def slopes_of_units(
  slopes: Mapping[str, Float[Array | np.ndarray, '_']],
) -> dict[str, Float[Array | np.ndarray, '_']]:
  """Adds slopes of tied units to those of single gates."""
  tied = {
    f'{key}k': slopes[key] + slopes[key[:-1] + 'k']
    for key in slopes
    if key.endswith('attn.q') and '->' not in key
  }
  return {**slopes, **tied}


def gates_of_units(
  units: Mapping[str, Shaped[Array | np.ndarray, '_']],
) -> dict[str, Shaped[Array | np.ndarray, '_']]:
  """Unties units: the gates they stand for, or masks of them."""
  gates = {}
  for key, unit in units.items():
    if key.endswith('attn.qk'):
      gates[key[:-1]] = gates[key[:-2] + 'k'] = unit
    else:
      gates[key] = unit
  return gates


def unfold(
  model: GatedModel,
  units: Units,
  step: Callable[[Array], Array] = lambda unit: jnp.maximum(unit, 0),
) -> dict[str, Float[Array, '_']]:
  """Gates of a circuit that consists of these units.

  A node whose incoming edges are all removed is removed with them: it takes
  its value after AbsTopK, not what a constant product would make of it.

  Args:
    model: the model.
    units: by key, 0 or 1, or learned numbers that `step` turns into gates.
    step: from a learned number to a gate.
  """
  widths = node_sites(model.config)
  gates = {}
  for key, unit in units.items():
    gates[key] = step(unit)
    if '->' in key:
      target = key.split('->')[1]
      columns = model.edges[key][1]
      best = jax.ops.segment_max(unit, columns, widths[target])
      # A node that no weight reaches has no maximum.
      gates[target] = step(jnp.where(jnp.isfinite(best), best, -1))
  return gates_of_units(gates)


def _other_values(model, batch, key):
  """Activations of the full model on other prompts, position by position."""
  inputs, positions = batch.partners(model.ablation, key)
  _, seen = GPT(model.config).apply({'params': model.frozen}, **inputs)
  values = {}
  for site in model.values:
    for name in {site, site.replace('attn.v', 'attn.y')}:
      moved = jnp.take_along_axis(seen[name], positions[:, :, None], axis=1)
      values[name] = jax.lax.stop_gradient(moved)
  return values


def run(
  model: GatedModel, gates: Gates, batch: Any, key: Key[Array, '']
) -> tuple[Float[Array, '...'], dict[str, Float[Array, '...']]]:
  """Logits and activations of the gated model; see `outputs`."""
  values = model.values
  if model.ablation in OF_OTHER_PROMPTS:
    values = _other_values(model, batch, key)
  if model.ablation == 'subsets':
    keys = jax.random.split(key, len(gates))
    gates = {
      name: gate + (1 - gate) * jax.random.bernoulli(one, _RESTORED, gate.shape)
      for one, (name, gate) in zip(keys, sorted(gates.items()), strict=True)
    }
  params, edits = apply_gates(
    model.config, model.frozen, model.edges, gates, values, model.slots
  )
  inputs = batch.inputs()
  return GPT(model.config).apply({'params': params}, edits=edits, **inputs)


def outputs(
  model: GatedModel, gates: Gates, batch: Any, key: Key[Array, '']
) -> Float[Array, 'size ...']:
  """What the gated model answers; see `task_loss` and `output_loss`.

  Args:
    model: the model.
    gates: by site and matrix; what is absent stays whole.
    batch: Pairs or Recorded.
    key: draws other prompts and subsets, for ablations that have them.
  """
  logits, _ = run(model, gates, batch, key)
  return batch.read(logits)


_outputs = jax.jit(outputs)


def full_batches(
  batch: Any, seed: int = 0
) -> Iterator[tuple[Any, Key[Array, '']]]:
  """BATCH pairs or sequences at a time, and a key to draw with.

  The last batch is filled up with what was already there.
  """
  keys = jax.random.key(seed)
  for start in range(0, batch.size, BATCH):
    indices = np.arange(start, start + BATCH) % batch.size
    yield batch.take(indices), jax.random.fold_in(keys, start)


def all_outputs(
  model: GatedModel,
  gates: Gates,
  batch: Any,
  seed: int = 0,
  count: Count | None = None,
) -> Float[np.ndarray, 'size ...']:
  """Answers to any number of pairs or sequences, in one compiled shape.

  Every task, gate and number of pairs runs the same program. Other prompts and
  subsets are drawn once per batch.

  Args:
    model: the model.
    gates: by site and matrix; what is absent stays whole.
    batch: Pairs or Recorded.
    seed: of other prompts and subsets.
    count: called as count(done, in all) after every batch.
  """
  parts = []
  for part, key in full_batches(batch, seed):
    parts.append(np.asarray(_outputs(model, dict(gates), part, key)))
    if count is not None:
      count(min(len(parts) * BATCH, batch.size), batch.size)
  return np.concatenate(parts)[: batch.size]


def add_full(model: GatedModel, batch: Any) -> Any:
  """Pairs with the full model's answers, for losses with a KL part."""
  if not hasattr(batch, 'full'):
    return batch
  return batch._replace(full=jnp.asarray(all_outputs(model, {}, batch)))


@jax.jit
def gate_slopes(
  model: GatedModel,
  gates: Gates,
  batch: Any,
  scale: Float[Array, ''] | float = 1.0,
  shift: Float[Array, ''] | float = 0.0,
  kl_weight: Float[Array, ''] | float = 0.0,
) -> dict[str, Float[Array, '_']]:
  """Gradient of the mean loss in the gates, by site and matrix.

  To first order, removing a part costs minus its slope.
  """

  def loss(gates):
    answers = outputs(model, gates, batch, jax.random.key(0))
    return jnp.mean(batch.losses(answers, scale, shift, kl_weight))

  return jax.grad(loss)(dict(gates))
