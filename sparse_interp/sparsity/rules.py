"""Which tensors become sparse, and how many weights each keeps at each step.

Rules name the density that a kind of tensor follows; with a schedule and the
shapes of a model they become targets, which the projection takes.
Source: arXiv 2511.13653, section A.1, and the published training script.
"""

import dataclasses
import re
from typing import Any

import jax
import numpy as np

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

    >>> find_rule('h_0/attn/c_attn/kernel')
    Rule(density='hidden', alive_axis=0)
    >>> mine = ((r'wte/.*', Rule('dense')), *PUBLISHED_RULES)
    >>> find_rule('wte/embedding', mine).density
    'dense'

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
