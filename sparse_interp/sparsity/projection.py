"""Exactly k nonzeros per tensor after every step, as an optax transform.

The mask is computed from p + u, the weights where the optimizer wants them,
and the returned update lands exactly on it:

    update = u where |p + u| is among the k largest, else -p.

A weight that is kept may be zero itself (a bias that no gradient has reached
yet): the state says how many are, so that every other count but k is a fault.

Nothing multiplies by a mask in the forward pass, so gradients stay dense and a
dropped weight can come back. Paper section A.1; the rule that keeps a minimum
of weights per neuron and attention channel is that of the published script.

Matrices of the layers can be thinned out by square blocks instead: those of
largest Frobenius norm stay whole, and their number is exact.
"""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from sparse_interp.ops.block_sparse import block_sparse
from sparse_interp.ops.topk import topk
from sparse_interp.sparsity.rules import Target, tensor_names


def keep_mask(
  weights: Float[Array, '...'], count: Any, target: Target
) -> Bool[Array, '...']:
  """Marks exactly `count` weights: the protected ones, then the largest.

  Args:
    weights: one tensor, possibly sharded; the mask is sharded alike.
    count: int or int32 scalar, may be traced.
    target: its `alive_axis` and `minimum_alive`.

  Returns:
    Boolean mask with exactly `count` True; ties go to the lowest flat index.
  """
  return _keep_in_each(weights[None], count, target)[0]


def _keep_in_each(
  weights: Float[Array, 'tensors ...'], count: Any, target: Target
) -> Bool[Array, 'tensors ...']:
  """The masks of tensors that are alike in shape and target."""
  if target.block is not None:
    return _keep_blocks(weights, count, target, target.block)
  weights = _put_first(weights, target.minimum_alive, target.alive_axis)
  return topk.keep_mask(weights, count, stacked=True)


def _put_first(
  scores: Float[Array, 'tensors ...'], alive: int, axis: int | None
) -> Float[Array, 'tensors ...']:
  """Makes `alive` scores infinite along an axis of each tensor, the largest."""
  if not alive:
    return scores
  assert axis is not None  # without one, no rule protects anything
  protected = topk.keep_mask_along_axis(scores, alive, axis + 1)
  return jnp.where(protected, jnp.inf, scores)


def _keep_blocks(
  weights: Float[Array, 'tensors K N'], count: Any, target: Target, side: int
) -> Bool[Array, 'tensors K N']:
  """Marks whole blocks: as many as protect every unit, then the largest.

  A unit with one kept block has `side` weights along `alive_axis`.
  """
  scores = jax.vmap(lambda matrix: block_sparse.block_norms(matrix, side))(
    weights
  )
  alive = -(-target.minimum_alive // side)
  scores = _put_first(scores, alive, target.alive_axis)
  kept = topk.keep_mask(scores, count // side**2, stacked=True)
  tensors, rows, columns = kept.shape
  entries = kept[:, :, None, :, None]
  entries = jnp.broadcast_to(entries, (tensors, rows, side, columns, side))
  return entries.reshape(weights.shape)


def count_at(target: Target, step: Any) -> Any:
  """Looks up how many weights are kept in the update with number `step`.

  Raises:
    ValueError: the target has a table, but there is no step.
  """
  if isinstance(target.counts, int):
    return target.counts
  if step is None:
    raise ValueError(
      'step must be given where counts are a table, got None; call '
      'update(updates, state, params, step=step).'
    )
  # jax clamps an index past the end, which is what the table promises.
  return jnp.asarray(target.counts)[step]


class ProjectionState(NamedTuple):
  """What the last update met.

  Attributes:
    vacant: {tensor name: kept weights that are zero, int32}.
  """

  vacant: dict[str, Int[Array, '']]


def keep_masks(
  weights: Mapping[str, Array], targets: Mapping[str, Target], step: Any
) -> tuple[dict[str, Array], dict[str, Int[Array, '']]]:
  """Applies `keep_mask` to every tensor that has a target.

  Tensors alike in shape and target (the layers of a model) are searched as one:
  the search is compiled once for all of them, and its table embedded once.

  Returns:
    ({name: mask}, {name: kept weights that are zero}).
  """
  groups = collections.defaultdict(list)
  for name, target in targets.items():
    table = target.counts
    counts = table if isinstance(table, int) else id(table)
    alive = (target.alive_axis, target.minimum_alive, target.block)
    groups[weights[name].shape, counts, alive].append(name)
  masks, vacant = {}, {}
  for names in groups.values():
    target = targets[names[0]]
    stacked = jnp.stack([weights[name] for name in names])
    kept = _keep_in_each(stacked, count_at(target, step), target)
    masks |= dict(zip(names, kept, strict=True))
    zeros = jnp.sum(
      kept & (stacked == 0), axis=tuple(range(1, kept.ndim)), dtype=jnp.int32
    )
    vacant |= dict(zip(names, zeros, strict=True))
  return masks, vacant


def keep_largest_weights(
  targets: Mapping[str, Target],
) -> optax.GradientTransformationExtraArgs:
  """Keeps exactly k weights of each target tensor: those of largest |p + u|.

  Put it last in the chain, after the learning rate; only a decay that
  multiplies weights may follow, since it keeps zeros at zero.

  Args:
    targets: by tensor name ('/'-joined path); other tensors stay dense.

  Returns:
    A transform with a `ProjectionState`. `update` needs `params`, and the
    keyword `step` where a target has a table of counts.

  Examples:
    >>> import jax.numpy as jnp, optax
    >>> params = {'w': jnp.array([3.0, -2.0, 0.5, 0.1])}
    >>> tx = optax.chain(
    ...   optax.sgd(1.0), keep_largest_weights({'w': Target(2)})
    ... )
    >>> grads = {'w': jnp.array([0.0, 0.0, 0.0, 5.0])}
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> print(optax.apply_updates(params, updates)['w'])
    [ 3.   0.   0.  -4.9]
  """

  def init(params: Any) -> ProjectionState:
    missing = set(targets) - set(jax.tree.leaves(tensor_names(params)))
    if missing:
      raise ValueError(
        f'targets must name parameters, got {sorted(missing)[0]!r}; the '
        'names are the /-joined paths of the tree.'
      )
    return ProjectionState({name: jnp.int32(0) for name in targets})

  def update(
    updates: Any, state: Any, params: Any = None, *, step: Any = None, **extra
  ) -> tuple[Any, Any]:
    del state, extra
    if params is None:
      raise ValueError(
        'params must be given to a projection, got None; call '
        'update(updates, state, params).'
      )

    names = tensor_names(params)
    moved = {
      name: weight + move
      for name, weight, move in zip(
        *map(jax.tree.leaves, (names, params, updates)), strict=True
      )
    }
    masks, vacant = keep_masks(moved, targets, step)

    def land(name: str, weight: Array, move: Array) -> Array:
      return jnp.where(masks[name], move, -weight) if name in masks else move

    landed = jax.tree.map(land, names, params, updates)
    return landed, ProjectionState(vacant)

  return optax.GradientTransformationExtraArgs(init, update)
