"""A circuit and its model in float64: what is cut out of their products."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.extracted.small_arrays import Linear
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_name, read_site


@dataclasses.dataclass(frozen=True)
class Cut:
  """What a small model is made from.

  Attributes:
    config: the model.
    params: its parameters.
    nodes: {site: sorted kept channels}.
    means: {site: values that removed nodes take}, float64.
    edges: {matrix name: rows and columns of kept weights}; None keeps every
      weight that kept nodes read.
    closed: whether what is removed is constant wherever it is read.
  """

  config: GPTConfig
  params: dict
  nodes: Mapping[str, Int[np.ndarray, '_']]
  means: Mapping[str, Float[np.ndarray, '_']]
  edges: Mapping[str, Int[np.ndarray, '2 _']] | None
  closed: bool = False

  def get(self, *path: str) -> np.ndarray | None:
    """A parameter in float64, or None where the model has none."""
    node = self.params
    for key in path:
      if key not in node:
        return None
      node = node[key]
    return floats(node)

  def linear(
    self,
    source: str,
    target: str,
    sparse_site: str,
    kernel: np.ndarray,
    bias: np.ndarray | None,
  ) -> Linear | None:
    """Kept rows; kept columns, or all that compete in AbsTopK with these."""
    kept = self.nodes[target]
    if not kept.size:
      return None
    bias = np.zeros(kernel.shape[1]) if bias is None else bias
    left = np.zeros_like(kernel)
    if self.edges is None:
      left[self.nodes[source]] = kernel[self.nodes[source]]
    else:
      rows, columns = self.edges[edge_name(source, target)]
      left[rows, columns] = kernel[rows, columns]
    mean = self.means[source]
    if self.edges is not None or self.closed:
      mean = self.means[read_site(self.config, source)]
    bias = bias + mean @ (kernel - left)
    kernel = left[self.nodes[source]]
    taken = read_site(self.config, target) if self.closed else target
    mean = single(self.means[taken][kept])
    width = kernel.shape[1]
    if self.closed or self.config.kept_activations(sparse_site, width) is None:
      return Linear(single(kernel[:, kept]), single(bias[kept]), None, mean)
    return Linear(single(kernel), single(bias), jnp.asarray(kept), mean)


def floats(array: Any) -> Float[np.ndarray, '...']:
  """In float64, in which constants are folded."""
  return np.asarray(array, np.float64)


def single(array: Any) -> Float[Array, '...']:
  """In float32, in which the small model computes."""
  return jnp.asarray(floats(array).astype(np.float32))
