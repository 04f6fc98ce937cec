"""What one learned number decides, and all that is done to a set of these.

A unit is a node, an edge, or with tied queries and keys the same channel of
both. Units are numbered through all keys, in the order of the forward pass: a
circuit is a mask over these numbers, and a ranking an order of them. Units
unfold into gates on sites and matrices, which `gated_model` runs with.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from sparse_interp.circuits import parts as parts_lib
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.parts import Masks, Parts
from sparse_interp.models.sites import (
  edge_ends,
  is_matrix,
  node_sites,
  tied_key,
  tied_sites,
)

# {key: one number per unit}; keys are sites, matrices, or `{layer}.attn.qk`.
ByKey = Mapping[str, Float[Array | np.ndarray, '_']]

# Which units a circuit keeps, in the order of all keys.
Mask = Bool[np.ndarray, 'units']


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
  """All units of a model; which of them are kept, a mask says.

  Attributes:
    model: the model with its ablation.
    sizes: {key: number of units}, in the order of the forward pass.
  """

  model: GatedModel
  sizes: Mapping[str, int]

  def on(self, model: GatedModel) -> 'Units':
    """The same units of the model in another state, under one ablation, say."""
    return dataclasses.replace(self, model=model)

  def by_kind(self) -> 'list[Units]':
    """The same units under each of the ablations of the model."""
    return [self.on(self.model.under(kind)) for kind in self.model.kinds]

  @property
  def count(self) -> int:
    """Number of all units."""
    return sum(self.sizes.values())

  @property
  def on_edges(self) -> bool:
    """Whether units are edges, as opposed to nodes."""
    return any(is_matrix(key) for key in self.sizes)

  def flatten(
    self, by_key: Mapping[str, Shaped[Array | np.ndarray, '_']]
  ) -> Shaped[np.ndarray, 'units']:
    """Joins {key: one number per unit} to one vector over all units."""
    return np.concatenate([np.asarray(by_key[key]) for key in self.sizes])

  def split(
    self, flat: Shaped[np.ndarray, 'units']
  ) -> dict[str, Shaped[np.ndarray, '_']]:
    """Inverse of `flatten`."""
    ends = np.cumsum(list(self.sizes.values()))
    return dict(zip(self.sizes, np.split(flat, ends[:-1]), strict=True))

  def filled(self, value: float) -> dict[str, Float[np.ndarray, '_']]:
    """{key: float32, the same number for each of its units}."""
    return {k: np.full(n, value, np.float32) for k, n in self.sizes.items()}

  def mask_of(self, chosen: Mapping[str, Sequence[int] | np.ndarray]) -> Mask:
    """Mask that keeps exactly the units with these numbers under each key."""
    keep = {key: np.zeros(size, bool) for key, size in self.sizes.items()}
    for key, numbers in chosen.items():
      keep[key][np.asarray(numbers, int)] = True
    return self.flatten(keep)

  def random_like(self, keep: Mask, seed: int) -> Mask:
    """A random circuit with as many units under each key as `keep`."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(mask) for mask in self.split(keep).values()]
    return np.concatenate(drawn)

  def key_of(self, site: str) -> str | None:
    """Key of the units that decide the nodes of a site; None without any."""
    keys = (key for key in (site, tied_key(site)) if key in self.sizes)
    return next(keys, None)

  def masks(self, keep: Mask) -> Masks:
    """{site or matrix: which of its nodes or edges are kept}."""
    return untie(self.split(keep))

  def parts(self, keep: Mask) -> Parts:
    """Nodes and edges that kept units stand for."""
    return parts_lib.parts_of(self.model, self.masks(keep))

  def live(self, keep: Mask) -> Mask:
    """Kept units without those that lead nowhere.

    Norms and AbsTopK let such units matter all the same, slightly: their
    removal has to be tried, not assumed.
    """
    live = parts_lib.live(self.model, self.masks(keep))
    by_key = {
      key: np.any([live[site] for site in tied_sites(key)], axis=0)
      for key in self.sizes
    }
    return keep & self.flatten(by_key)

  def settle(self, keep: Mask) -> Mask:
    """The circuit that kept units make: with gates on edges, only live ones."""
    return self.live(keep) if self.on_edges else keep

  def unfold(self, keep: Mask) -> dict[str, Float[Array, '_']]:
    """Gates of these units as they are, dead ends among them."""
    return _unfold(self.model, self.split(keep.astype(np.float32)))

  def gates(self, keep: Mask) -> dict[str, Float[Array, '_']]:
    """Gates of the circuit that kept units make."""
    return self.unfold(self.settle(keep))

  def gates_of_rest(self, keep: Mask) -> dict[str, Float[np.ndarray, '_']]:
    """Gates of the model without a circuit: its units off, all else on."""
    return untie(self.split(1 - keep.astype(np.float32)))

  def slopes(self, by_gate: ByKey) -> Float[np.ndarray, 'units']:
    """Slope in every unit from those in single gates; tied ones add up."""
    tied = {
      key: functools.reduce(operator.add, map(by_gate.get, tied_sites(key)))
      for key in self.sizes
    }
    return self.flatten(tied)


def make(
  model: GatedModel, gates: str, final_resid: bool = True, tie_qk: bool = False
) -> Units:
  """The units of a model.

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
    return Units(model, sizes)
  for site, width in node_sites(model.config, final_resid).items():
    sizes[tied_key(site) if tie_qk else site] = width
  return Units(model, sizes)


def untie(
  by_key: Mapping[str, Shaped[Array | np.ndarray, '_']],
) -> dict[str, Shaped[Array | np.ndarray, '_']]:
  """What is given by key, by site and matrix: queries and keys untied."""
  return {site: one for key, one in by_key.items() for site in tied_sites(key)}


def unfold(
  model: GatedModel,
  by_key: ByKey,
  step: Callable[[Array], Array] = lambda unit: jnp.maximum(unit, 0),
) -> dict[str, Float[Array, '_']]:
  """Gates of a circuit that consists of these units.

  A node whose incoming edges are all removed is removed with them: it takes
  its value after AbsTopK, not what a constant product would make of it.

  Args:
    model: the model.
    by_key: 0 or 1, or learned numbers that `step` turns into gates.
    step: from a learned number to a gate.
  """
  widths = node_sites(model.config)
  gates = {}
  for key, unit in by_key.items():
    gates[key] = step(unit)
    if is_matrix(key):
      _, target = edge_ends(key)
      columns = model.edges[key][1]
      best = jax.ops.segment_max(unit, columns, widths[target])
      # A node that no weight reaches has no maximum.
      gates[target] = step(jnp.where(jnp.isfinite(best), best, -1))
  return untie(gates)


_unfold = jax.jit(unfold)
