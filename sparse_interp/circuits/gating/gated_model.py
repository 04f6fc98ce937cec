"""A model whose parts carry gates: what everything in this room runs.

Gates on sites and matrices become parameters and edits of a model call; which
gates there are, `units` knows.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sparse_interp.circuits.counting import Count
from sparse_interp.circuits.gating.ablation import (
  OF_OTHER_PROMPTS,
  check_ablation,
  kinds_of,
)
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gates import (
  EdgeIndex,
  EdgeSlots,
  Gates,
  Values,
  apply_gates,
  edge_slots,
  nonzero_weights,
)
from sparse_interp.models import GPT, GPTConfig, frozen
from sparse_interp.models.sites import mixed_site

# Every batch of pairs or sequences runs in this shape.
BATCH = 32

# Values of other prompts are kept up to this size, for each batch.
_MOST_BYTES = 2**29

# Share of the removed parts that come back in each draw of random subsets.
_RESTORED = 0.5


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['params', 'values', 'edges', 'frozen', 'slots'],
  meta_fields=['config', 'ablation', 'closed'],
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
    closed: whether what is removed is constant wherever it is read, see
      `gates.apply_gates`.
  """

  config: GPTConfig
  params: dict
  values: Values
  edges: EdgeIndex
  frozen: dict
  slots: EdgeSlots
  ablation: str = 'mean'
  closed: bool = False

  @property
  def kinds(self) -> tuple[str, ...]:
    """The ablations that are asked for together, most often one."""
    return kinds_of(self.ablation)

  def under(self, kind: str) -> 'GatedModel':
    """The model with one of its ablations."""
    return dataclasses.replace(self, ablation=kind)


def make(
  config: GPTConfig,
  params: dict,
  values: Values,
  ablation: str = 'mean',
  products: str = 'auto',
  closed: bool = False,
) -> GatedModel:
  """Gathers a model and its nonzero weights.

  Args:
    config: the model.
    params: its parameters.
    values: {site: what removed nodes take}.
    ablation: one of `ablation.ABLATIONS`.
    products: how it multiplies with its weights, one of `frozen.PRODUCTS`.
    closed: whether what is removed is constant wherever it is read.

  Raises:
    ValueError: if the ablation or the products are unknown.
  """
  check_ablation(ablation)
  edges = nonzero_weights(config, params)
  values = {site: jnp.asarray(value) for site, value in values.items()}
  running = frozen.freeze(config, params, products)
  slots = edge_slots(config, running)
  return GatedModel(
    config, params, values, edges, running, slots, ablation, closed
  )


def _other_values(model, batch, key):
  """Activations of the full model on other prompts, position by position."""
  inputs, positions = batch.partners(model.ablation, key)
  _, seen = GPT(model.config).apply({'params': model.frozen}, **inputs)
  values = {}
  for site in model.values:
    for name in {site, mixed_site(site)}:
      moved = jnp.take_along_axis(seen[name], positions[:, :, None], axis=1)
      values[name] = jax.lax.stop_gradient(moved)
  return values


def run(
  model: GatedModel,
  gates: Gates,
  batch: Batch,
  key: Key[Array, ''],
  others: Values | None = None,
) -> tuple[Float[Array, '...'], dict[str, Float[Array, '...']]]:
  """Logits and activations of the gated model; see `outputs`."""
  model, values = model.under(model.kinds[0]), model.values
  if model.ablation in OF_OTHER_PROMPTS:
    values = others or _other_values(model, batch, key)
  if model.ablation == 'subsets':
    keys = jax.random.split(key, len(gates))
    gates = {
      name: gate + (1 - gate) * jax.random.bernoulli(one, _RESTORED, gate.shape)
      for one, (name, gate) in zip(keys, sorted(gates.items()), strict=True)
    }
  params, edits = apply_gates(
    model.config,
    model.frozen,
    model.edges,
    gates,
    values,
    model.slots,
    model.closed,
  )
  inputs = batch.inputs()
  return GPT(model.config).apply({'params': params}, edits=edits, **inputs)


def outputs(
  model: GatedModel,
  gates: Gates,
  batch: Batch,
  key: Key[Array, ''],
  others: Values | None = None,
) -> Float[Array, 'size ...']:
  """What the gated model answers; see `task_loss` and `output_loss`.

  Args:
    model: the model; of several ablations, the first counts.
    gates: by site and matrix; what is absent stays whole.
    batch: pairs or sequences.
    key: draws other prompts and subsets, for ablations that have them.
    others: values of other prompts, where `values_of_others` has them.
  """
  logits, _ = run(model, gates, batch, key, others)
  return batch.read(logits)


_outputs = jax.jit(outputs)


def full_batches(
  batch: Batch, seed: int = 0
) -> Iterator[tuple[Batch, Key[Array, '']]]:
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
  batch: Batch,
  seed: int = 0,
  count: Count | None = None,
  others: Sequence[Values] | None = None,
) -> Float[np.ndarray, 'size ...']:
  """Answers to any number of pairs or sequences, in one compiled shape.

  Every task, gate and number of pairs runs the same program. Other prompts and
  subsets are drawn once per batch.

  Args:
    model: the model.
    gates: by site and matrix; what is absent stays whole.
    batch: pairs or sequences.
    seed: of other prompts and subsets.
    count: called as count(done, in all) after every batch.
    others: from `values_of_others`, for the same batch and seed.
  """
  parts = []
  for i, (part, key) in enumerate(full_batches(batch, seed)):
    own = others[i] if others else None
    parts.append(np.asarray(_outputs(model, dict(gates), part, key, own)))
    if count is not None:
      count(min(len(parts) * BATCH, batch.size), batch.size)
  return np.concatenate(parts)[: batch.size]


def values_of_others(
  model: GatedModel, batch: Batch, seed: int = 0
) -> list[Values] | None:
  """What removed parts take from other prompts, for each batch.

  They are those of the full model, whatever the gates: who asks about many
  circuits asks for them once. None if the ablation needs none, or if they are
  too large to be kept.
  """
  if model.ablation not in OF_OTHER_PROMPTS or not can_be_kept(model, batch):
    return None
  return list(each_values_of_others(model, batch, seed))


def can_be_kept(model: GatedModel, batch: Batch) -> bool:
  """Whether all activations on a batch are few enough to be kept."""
  width = sum(value.shape[-1] for value in model.values.values())
  return 4 * batch.inputs()['tokens'].size * width <= _MOST_BYTES


def each_values_of_others(
  model: GatedModel, batch: Batch, seed: int = 0
) -> Iterator[Values]:
  """The same one batch after another, so that none has to be kept."""
  for part in full_batches(batch, seed):
    yield _others(model, *part)


_others = jax.jit(_other_values)


def add_full(model: GatedModel, batch: Batch) -> Batch:
  """Pairs with the full model's answers, for losses with a KL part."""
  return batch.with_full(lambda: all_outputs(model, {}, batch))


@jax.jit
def gate_slopes(
  model: GatedModel,
  gates: Gates,
  batch: Batch,
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
