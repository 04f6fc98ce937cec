"""What can be counted on sparse weights: nonzeros, dead units, mask churn.

A neuron is dead when no weight enters it or none leaves it. A channel of
attention is a column of c_attn (query, key or value); it is dead when no
weight enters it, a value channel also when none leaves it through c_proj.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.sparsity import rules


def named_tensors(params: Any) -> dict[str, Any]:
  """Flattens a parameter tree to {'h_0/attn/c_attn/kernel': tensor, ...}."""
  names = jax.tree.leaves(rules.tensor_names(params))
  return dict(zip(names, jax.tree.leaves(params), strict=True))


def nonzero_counts(params: Any) -> dict[str, Int[Array, '']]:
  """Counts the nonzero entries of every tensor, by name."""
  return {
    name: jnp.count_nonzero(tensor)
    for name, tensor in named_tensors(params).items()
  }


def asked_counts(
  params: Any, targets: Mapping[str, rules.Target], step: int | None = None
) -> dict[str, int]:
  """Nonzeros that each tensor must have; dense ones: its size.

  Args:
    params: tree of arrays.
    targets: what the projection keeps.
    step: number of the update before; None means after the last one.
  """

  def asked(target):
    table = np.asarray(target.counts).reshape(-1)
    return int(table[-1 if step is None else min(step, table.size - 1)])

  return {
    name: asked(targets[name]) if name in targets else int(tensor.size)
    for name, tensor in named_tensors(params).items()
  }


def dead_neurons(params: Any) -> Int[Array, '']:
  """Neurons of all layers without an incoming or without an outgoing weight."""
  tensors = named_tensors(params)
  dead = jnp.int32(0)
  for name, into in tensors.items():
    if name.endswith('mlp/c_fc/kernel'):
      out = tensors[name.replace('c_fc', 'c_proj')]
      lives = jnp.any(into != 0, axis=0) & jnp.any(out != 0, axis=1)
      dead += jnp.sum(~lives, dtype=jnp.int32)
  return dead


def dead_attention_channels(params: Any) -> Int[Array, '']:
  """Query, key and value channels of all layers that carry nothing."""
  tensors = named_tensors(params)
  dead = jnp.int32(0)
  for name, into in tensors.items():
    if name.endswith('attn/c_attn/kernel'):
      out = tensors[name.replace('c_attn', 'c_proj')]
      query, key, value = jnp.split(jnp.any(into != 0, axis=0), 3)
      value = value & jnp.any(out != 0, axis=1)
      lives = jnp.concatenate([query, key, value])
      dead += jnp.sum(~lives, dtype=jnp.int32)
  return dead


def mask_churn(
  before: Any, after: Any, names: Collection[str]
) -> Float[Array, '']:
  """Share of the nonzeros of the named tensors that were zero before.

  Args:
    before: parameters before an update.
    after: parameters after it.
    names: tensors to look at, e.g. those with a target.

  Returns:
    A number in [0, 1]; 0 where nothing is nonzero.
  """
  old, new = named_tensors(before), named_tensors(after)
  entered, alive = jnp.int32(0), jnp.int32(0)
  for name in names:
    nonzero = new[name] != 0
    entered += jnp.sum(nonzero & (old[name] == 0), dtype=jnp.int32)
    alive += jnp.sum(nonzero, dtype=jnp.int32)
  return entered / jnp.maximum(alive, 1)
