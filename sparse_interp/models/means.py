"""Means of all nodes over text: what removed nodes are held at.

One per node, pooled over sequences and positions, of the value after AbsTopK
(arXiv 2511.13653, section 2.2 and its released mean files).
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.models import frozen, sites
from sparse_interp.models.config import GPTConfig
from sparse_interp.models.gpt import GPT


@functools.partial(jax.jit, static_argnames='config')
def _batch_means(
  config: GPTConfig, params: dict, tokens: Int[Array, 'batch time']
) -> dict[str, Float[Array, '_']]:
  """Means of one batch by site; XLA drops the unused unembedding."""
  _, activations = GPT(config).apply({'params': params}, tokens)
  return {
    site: jnp.mean(activations[site].astype(jnp.float32), axis=(0, 1))
    for site in sites.constant_sites(config)
  }


def site_means(
  config: GPTConfig,
  params: dict,
  batches: Iterable[Int[np.ndarray | Array, '_ _']],
) -> dict[str, Float[Array, '_']]:
  """Mean of every node over batches of pretraining tokens.

  Args:
    config: the model.
    params: its parameters.
    batches: token windows; equal shapes compile once. Batches are weighted by
      their number of tokens and summed in float64.

  Returns:
    {site: (width,) float32} for every node site, `final_resid` included, and
    with attention sinks for mixed values (`{layer}.attn.y`).

  Raises:
    ValueError: if there is no batch.
  """
  totals, count = {}, 0
  params = frozen.freeze(config, params)
  for tokens in batches:
    tokens = jnp.asarray(tokens)
    for site, mean in _batch_means(config, params, tokens).items():
      weighted = np.asarray(mean, np.float64) * tokens.size
      totals[site] = totals.get(site, 0) + weighted
    count += tokens.size
  if not count:
    raise ValueError(
      'batches must hold at least one batch of tokens, got none; the means of '
      'removed nodes need pretraining text.'
    )
  return {
    site: jnp.asarray(totals[site] / count, jnp.float32)
    for site in sites.constant_sites(config)
  }
