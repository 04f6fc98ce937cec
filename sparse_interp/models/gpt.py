"""The model: tokens in, logits and every named activation out.

GPT-2-like transformer with the switches of arXiv 2511.13653 (section 2, A.1).
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.models import sites
from sparse_interp.models.config import GPTConfig
from sparse_interp.models.layers import (
  Block,
  Norm,
  frozen_kernel,
  keys_seen,
)
from sparse_interp.models.products import DENSE, Products, token_product
from sparse_interp.ops.row_sparse.row_sparse import row_sparse_matmul

Edit = Callable[[Array], Array]


def sinusoidal_positions(
  length: int, width: int
) -> Float[np.ndarray, 'length width']:
  """Frozen [sin, cos] table with periods log-spaced from 4 to `length`."""
  periods = np.geomspace(4, length, width // 2)
  angles = 2 * np.pi * np.arange(length)[:, None] / periods
  table = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
  return table.astype(np.float32)


class GPT(nn.Module):
  """Transformer, sparse in weights by training, not by masks.

  Attributes:
    config: the architecture.
    products: what products with the matrices of the layers may skip. With
      blocks, `mutable=['occupancy']` returns the share of those not zero.
  """

  config: GPTConfig
  products: Products = DENSE

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, 'batch time'],
    edits: Mapping[str, Edit] | None = None,
    positions: Int[Array, 'batch'] | None = None,
    lengths: Int[Array, 'batch'] | None = None,
  ) -> tuple[Float[Array, '...'], dict[str, Float[Array, 'batch time _']]]:
    """Runs the model.

    Args:
      tokens: ids below vocab_size.
      edits: {site: function of the activation at that site}; applied after
        AbsTopK and before recording, so what flows on is what is recorded.
        Any recorded name may be edited.
      positions: one time index per sequence at which logits are wanted; None
        for all. Unembedding one position is far cheaper than all.
      lengths: number of tokens per sequence, at least 1, where sequences are
        padded on the right: what follows is seen from nowhere. None: all
        tokens count. Only a model that is not causal needs it.

    Returns:
      Logits in float32, (batch, time, outputs) or, with positions, (batch,
      outputs), where outputs are tokens or `d_output` columns; and activations
      by name, each (batch, time, width): the node sites plus
      `{layer}.resid_in`, `{layer}.resid_mid`, `{layer}.attn.y`, and
      `{site}.raw` for all but `final_resid`: the norm or the product of a
      matrix, before nonlinearity and AbsTopK.

    Raises:
      ValueError: if an edit names an unknown site, or learned positions are
        too few for the sequence.
    """
    config = self.config
    edits = dict(edits or {})
    activations = {}
    self._check(edits, tokens.shape[1])

    def see(site, x):
      if site in edits:
        x = edits[site](x)
      activations[site] = x
      return x

    embed = nn.Embed(
      config.vocab_size,
      config.d_model,
      embedding_init=nn.initializers.normal(0.02),
      name='wte',
    )
    x = embed(tokens)
    added, concatenated = self._positions(tokens.shape[1])
    seen = keys_seen(config, tokens.shape[1], lengths)
    if added is not None:
      x = x + added
    for layer in range(config.n_layer):
      x = Block(config, self.products, name=f'h_{layer}')(
        x,
        concatenated,
        seen,
        lambda site, x, layer=layer: see(f'{layer}.{site}', x),
      )
    x = see('final_resid', x)
    if positions is not None:
      x = jnp.take_along_axis(x, positions[:, None, None], axis=1)
      tokens = jnp.take_along_axis(tokens, positions[:, None], axis=1)
    logits = self._unembed(Norm(config, name='ln_f')(x), embed)
    if config.bigram_table:
      logits = logits + self._bigrams(tokens)
    if config.final_logits_bias:
      # A constant of released models, never trained.
      bias = self.param(
        'final_logits_bias', nn.initializers.zeros, (config.vocab_size,)
      )
      logits = logits + jax.lax.stop_gradient(bias)
    return (logits if positions is None else logits[:, 0]), activations

  def _check(self, edits, time):
    known = recorded_names(self.config)
    for site in edits:
      if site not in known:
        raise ValueError(
          f'edits must name sites of the model, got {site!r}; its sites are '
          f'{", ".join(known[:11])}, ... final_resid.'
        )
    bounded = self.config.position not in ('none', 'rotary')
    if bounded and time > self.config.context_length:
      raise ValueError(
        'tokens must be at most model.context_length '
        f'({self.config.context_length}) long, got {time}; shorten them.'
      )

  def _positions(self, time):
    """(added, concatenated) position channels, each (time, width) or None."""
    config = self.config
    if config.position in ('none', 'rotary'):
      return None, None
    length, width = config.context_length, config.d_position
    if config.position == 'concat_sinusoidal':
      return None, jnp.asarray(sinusoidal_positions(length, width))[:time]
    added = config.position == 'added'
    table = nn.Embed(
      length,
      config.d_model if added else width,
      # Added positions start at zero, as in the published training code.
      embedding_init=(
        nn.initializers.zeros if added else nn.initializers.normal(0.02)
      ),
      name='wpe',
    ).embedding[:time]
    return (table, None) if added else (None, table)

  def _unembed(self, x, embed):
    config = self.config
    product = functools.partial(
      token_product, preferred_element_type=jnp.float32
    )
    if config.tied_unembed:
      kernel = embed.embedding.T.astype(config.dtype)
      return product(x.astype(config.dtype), kernel)
    sparse = frozen_kernel(self, 'lm_head')
    if sparse is not None:
      # The sums are float32 whatever comes in; the product stays so.
      x = x.astype(config.dtype).astype(jnp.float32)
      return row_sparse_matmul(x, sparse)
    return nn.Dense(
      config.output_width,
      use_bias=False,
      dtype=config.dtype,
      kernel_init=nn.initializers.normal(0.02),
      dot_general=product,
      name='lm_head',
    )(x)

  def _bigrams(self, tokens):
    vocab = self.config.vocab_size
    table = self.param(
      'bigram_table', nn.initializers.uniform(0.02), (vocab, vocab)
    )
    rows = table[tokens]
    # The published lookup pads with the last token: its row never trains.
    last = (tokens == vocab - 1)[..., None]
    return jnp.where(last, jax.lax.stop_gradient(rows), rows)


def recorded_names(config: GPTConfig) -> list[str]:
  """Every name under which a call records an activation, in forward order."""
  names = []
  for site in sites.node_sites(config):
    if site.endswith('attn.act_in'):
      names.append(site.replace('attn.act_in', 'resid_in'))
    if site.endswith('mlp.act_in'):
      names.append(site.replace('mlp.act_in', 'resid_mid'))
    if site.endswith('attn.resid_delta'):
      names.append(site.replace('attn.resid_delta', 'attn.y'))
    if site != 'final_resid':
      names.append(f'{site}.raw')
    names.append(site)
  return names
