"""Exactly k nonzeros per tensor after every step, as an optax transform.

The mask is computed from p + u, the weights where the optimizer wants them,
and the returned update lands exactly on it:

    update = u where |p + u| is among the k largest, else -p.

Nothing multiplies by a mask in the forward pass, so gradients stay dense and a
dropped weight can come back. Paper section A.1; the rule that keeps a minimum
of weights per neuron and attention channel is that of the published script.

Matrices of the layers can be thinned out by square blocks instead: those of
largest Frobenius norm stay whole, and their number is exact.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from sparse_interp.ops import block_sparse, topk
from sparse_interp.sparsity import feasible, schedules


@dataclasses.dataclass(frozen=True)
class Rule:
  """How one kind of tensor is thinned out.

  Attributes:
    density: 'hidden', 'embedding' or 'bias': whose density it follows;
      'dense' leaves it alone.
    alive_axis: axis along which at least `minimum_alive` entries stay, for
      every index of the other axis; None protects nothing.
  """

  density: str
  alive_axis: int | None = None


# First match wins. Kernels are (in, out), the transpose of the published
# layout: a neuron is a column of c_fc (its inputs lie along axis 0) and a row
# of c_proj (its outputs lie along axis 1); channels of attention likewise.
PUBLISHED_RULES: tuple[tuple[str, Rule], ...] = (
  (r'.*/attn/c_attn/kernel', Rule('hidden', alive_axis=0)),
  (r'.*/attn/c_proj/kernel', Rule('hidden', alive_axis=1)),
  (r'.*/mlp/c_fc/kernel', Rule('hidden', alive_axis=0)),
  (r'.*/mlp/c_proj/kernel', Rule('hidden', alive_axis=1)),
  (r'wpe/embedding', Rule('hidden')),
  (r'wte/embedding', Rule('embedding')),
  (r'lm_head/kernel', Rule('embedding')),
  (r'.*/(c_attn|c_proj|c_fc)/bias', Rule('bias')),
  (r'(.*/)?ln_\w+/(scale|bias)', Rule('dense')),
  (r'.*/sink_logit', Rule('dense')),
  (r'bigram_table', Rule('dense')),
  (r'final_logits_bias', Rule('dense')),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
  """What one tensor must look like after every step.

  Attributes:
    counts: nonzeros to keep: one int, or an int32 table with an entry per
      step whose last entry holds for all later steps.
    alive_axis: see `Rule`.
    minimum_alive: entries kept along `alive_axis` however small they are;
      they count inside `counts`.
    block: side of the square blocks that are kept or dropped whole; it divides
      both sides of the tensor, and its square every count. None: weights are
      kept one by one.
  """

  counts: int | np.ndarray
  alive_axis: int | None = None
  minimum_alive: int = 0
  block: int | None = None


def tensor_names(tree: Any) -> Any:
  """Replaces each leaf by its path, e.g. 'h_0/attn/c_attn/kernel'."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'),
    tree,
  )


def find_rule(
  name: str, rules: tuple[tuple[str, Rule], ...] = PUBLISHED_RULES
) -> Rule:
  """Returns the first rule whose pattern matches the whole name.

  Raises:
    ValueError: no rule covers the tensor, so that nobody trains a tensor
      dense by a slip of the pen.
  """
  for pattern, rule in rules:
    if re.fullmatch(pattern, name):
      return rule
  raise ValueError(
    f'rules must cover every parameter, got none for {name!r}; add '
    "(pattern, Rule('dense')) to leave it dense."
  )


def make_targets(
  params: Any,
  schedule: schedules.DensitySchedule,
  minimum_alive: int = 4,
  biases: str = 'sparse',
  rules: tuple[tuple[str, Rule], ...] = PUBLISHED_RULES,
  block: int | None = None,
) -> dict[str, Target]:
  """Tabulates for every sparse tensor how many weights it keeps at each step.

  Args:
    params: tree of arrays or of `jax.ShapeDtypeStruct`.
    schedule: density over steps.
    minimum_alive: weights that each neuron and attention channel keeps, on
      the matrices whose rule names an axis; 0 switches the rule off.
    biases: 'sparse' as in the paper, 'dense' as in the released script.
    rules: (pattern, rule) pairs; the first match of the whole name wins.
    block: side of the blocks in which tensors whose rule names an alive axis
      (the matrices of the layers) are thinned out, 16 to 128; None: weights one
      by one, like all other tensors.

  Returns:
    Targets by tensor name; tensors that stay dense are absent.

  Raises:
    ValueError: a count is too small for `minimum_alive`, or is 0; blocks are
      too small, too large, or do not divide a matrix.
  """
  if biases not in ('sparse', 'dense'):
    raise ValueError(
      "sparsity.biases must be 'sparse' or 'dense', got "
      f"{biases!r}; choose e.g. 'sparse'."
    )
  if minimum_alive < 0:
    raise ValueError(
      f'sparsity.minimum_alive must be 0 or more, got {minimum_alive}; '
      'choose e.g. 4, or 0 to protect no neuron.'
    )
  if block is not None and not 16 <= block <= 128:
    raise ValueError(
      f'sparsity.block must be None or in 16..128, got {block}; choose e.g. 64.'
    )
  embedding = schedules.embedding_density(schedule)
  density = {
    'hidden': schedules.hidden_density(schedule),
    'embedding': embedding,
    'bias': np.ones_like(embedding) if biases == 'dense' else embedding,
  }
  targets, tables = {}, {}
  names = jax.tree.leaves(tensor_names(params))
  for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
    rule = find_rule(name, rules)
    if rule.density == 'dense' or (rule.density, biases) == ('bias', 'dense'):
      continue
    side = block if rule.alive_axis is not None else None
    if side is not None:
      feasible.check_divides(name, leaf.shape, side)
    # One table per kind and size: they become constants of the compiled step.
    table = (rule.density, leaf.size, side)
    if table not in tables:
      area = 1 if side is None else side**2
      tables[table] = area * schedules.nonzero_counts(
        density[rule.density], leaf.size // area
      )
    counts = tables[table]
    alive = minimum_alive if rule.alive_axis is not None else 0
    feasible.check_counts(
      name, leaf.shape, int(counts.min()), rule.alive_axis, alive, side
    )
    targets[name] = Target(counts, rule.alive_axis, alive, side)
  return targets


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
    return _keep_blocks(weights, count, target)
  weights = _put_first(weights, target.minimum_alive, target.alive_axis)
  return topk.keep_mask(weights, count, stacked=True)


def _put_first(
  scores: Float[Array, 'tensors ...'], alive: int, axis: int | None
) -> Float[Array, 'tensors ...']:
  """Makes `alive` scores infinite along an axis of each tensor, the largest."""
  if not alive:
    return scores
  protected = topk.keep_mask_along_axis(scores, alive, axis + 1)
  return jnp.where(protected, jnp.inf, scores)


def _keep_blocks(
  weights: Float[Array, 'tensors K N'], count: Any, target: Target
) -> Bool[Array, 'tensors K N']:
  """Marks whole blocks: as many as protect every unit, then the largest.

  A unit with one kept block has `target.block` weights along `alive_axis`.
  """
  side = target.block
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


def keep_masks(
  weights: Mapping[str, Array], targets: Mapping[str, Target], step: Any
) -> dict[str, Array]:
  """Applies `keep_mask` to every tensor that has a target.

  Tensors alike in shape and target (the layers of a model) are searched as one:
  the search is compiled once for all of them, and its table embedded once.
  """
  groups = collections.defaultdict(list)
  for name, target in targets.items():
    table = target.counts
    counts = table if isinstance(table, int) else id(table)
    alive = (target.alive_axis, target.minimum_alive, target.block)
    groups[weights[name].shape, counts, alive].append(name)
  masks = {}
  for names in groups.values():
    target = targets[names[0]]
    stacked = jnp.stack([weights[name] for name in names])
    kept = _keep_in_each(stacked, count_at(target, step), target)
    masks |= dict(zip(names, kept, strict=True))
  return masks


def keep_largest_weights(
  targets: Mapping[str, Target],
) -> optax.GradientTransformationExtraArgs:
  """Keeps exactly k weights of each target tensor: those of largest |p + u|.

  Put it last in the chain, after the learning rate; only a decay that
  multiplies weights may follow, since it keeps zeros at zero.

  Args:
    targets: by tensor name ('/'-joined path); other tensors stay dense.

  Returns:
    A transform without state. `update` needs `params`, and the keyword `step`
    where a target has a table of counts.

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

  def init(params: Any) -> optax.EmptyState:
    missing = set(targets) - set(jax.tree.leaves(tensor_names(params)))
    if missing:
      raise ValueError(
        f'targets must name parameters, got {sorted(missing)[0]!r}; the '
        'names are the /-joined paths of the tree.'
      )
    return optax.EmptyState()

  def update(
    updates: Any, state: Any, params: Any = None, *, step: Any = None, **extra
  ) -> tuple[Any, Any]:
    del extra
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
    masks = keep_masks(moved, targets, step)

    def land(name: str, weight: Array, move: Array) -> Array:
      return jnp.where(masks[name], move, -weight) if name in masks else move

    return jax.tree.map(land, names, params, updates), state

  return optax.GradientTransformationExtraArgs(init, update)
