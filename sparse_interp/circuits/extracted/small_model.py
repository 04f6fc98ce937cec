"""A circuit as a small dense model: its one apply function.

Its arrays hold kept rows and columns only; what removal made constant has been
folded into biases and tables by `extract`. Two things need more than the kept
nodes:

- AbsTopK. A node survives if fewer than k channels of its site are larger, and
  unless the circuit is closed the others compete with the values they have
  before they are removed. Then all columns of a product are computed, from kept
  rows only, and a kept node is compared with them: its rank decides, without a
  search.
- Norms. Their statistic runs over the whole residual stream. Channels that
  neither vary by context nor are read contribute a sum of squares that depends
  on the token alone: a table.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.extracted.small_arrays import SmallModel
from sparse_interp.circuits.gating.gates import Gates, blend
from sparse_interp.models.layers import (
  activate,
  keys_seen,
  rotary_tables,
  sparsify,
)
from sparse_interp.models.sites import competing_sites
from sparse_interp.ops.attention.attention import visible_keys
from sparse_interp.ops.topk.topk import abs_topk

# Up to this many kept nodes, comparing each with its whole site is cheaper
# than finding the threshold of the site.
_RANKED = 24


def keep_largest(
  full: Float[Array, '*batch width'], kept: Int[Array, 'kept'], k: int | None
) -> Float[Array, '*batch kept']:
  """The kept columns of AbsTopK(full, k); None for k means no AbsTopK."""
  values = full[..., kept]
  if k is None:
    return values
  if kept.shape[0] > _RANKED:
    return abs_topk(full, k)[..., kept]
  magnitude, own = jnp.abs(full)[..., None, :], jnp.abs(values)[..., None]
  index = jnp.arange(full.shape[-1])
  # Ties go to the lower index, as in AbsTopK. A value is never compared with
  # itself: a compiler may compute it twice, with different rounding.
  earlier, other = index < kept[:, None], index != kept[:, None]
  ahead = ((magnitude > own) & other) | ((magnitude == own) & earlier)
  rank = jnp.sum(ahead.astype(jnp.int32), axis=-1)
  return jnp.where(rank < k, values, 0)


def _norm_scale(config, x, rest_square):
  """(centre, factor) of the norm of the carried residual stream."""
  if config.norm == 'none':
    return 0.0, 1.0
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  if config.norm == 'rms':
    if rest_square is not None:
      square = square + rest_square[..., None]
    return 0.0, jax.lax.rsqrt(square / config.d_model + config.norm_epsilon)
  centre = jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(x - centre), axis=-1, keepdims=True)
  return centre, jax.lax.rsqrt(variance + config.norm_epsilon)


class Keep(NamedTuple):
  """What becomes of the nodes of a site: AbsTopK, and gates if there are any.

  Attributes:
    closed: as in SmallModel.
    counts: {site: how many nodes AbsTopK keeps}.
    gates: {site: gates of the kept nodes}.
  """

  closed: bool
  counts: Mapping[str, int]
  gates: Gates

  def compete(self, site, x, kept):
    """The kept columns of x, those that are not among the largest as 0."""
    k = self.counts.get(site)
    if not self.closed:
      return x if kept is None else keep_largest(x, kept, k)
    if site in self.gates and k is not None:
      x = x * jax.lax.stop_gradient(self.gates[site])
    return x if k is None or k >= x.shape[-1] else abs_topk(x, k)

  def hold(self, site, x, mean):
    """x where gates are on, the mean where they are off."""
    return blend(self.gates[site], x, mean) if site in self.gates else x

  def settle(self, site, x, kept, mean):
    """Both in turn."""
    return self.hold(site, self.compete(site, x, kept), mean)


def _read(config, read, x, tokens):
  """The channels of an act_in site that its AbsTopK compares."""
  rest = None if read.rest_square is None else read.rest_square[tokens]
  centre, factor = _norm_scale(config, x, rest)
  x = (x - centre) * factor
  if read.gain is not None:
    x = x * read.gain
  if read.bias is not None:
    x = x + read.bias
  x = x[..., read.residual]
  if read.positions is not None:
    p = read.positions[: tokens.shape[1]]
    p = jnp.broadcast_to(p, (*tokens.shape, p.shape[-1]))
    x = jnp.concatenate([x, p], axis=-1)
  return x


def _product(x, linear):
  return x @ linear.kernel + linear.bias


def _patterns(config, heads, q, k, visible):
  """Attention weights (batch, heads, time, time); rows sum to 1 or less."""
  # Sites without kept nodes leave their slots constant.
  shape = (*q.shape[:2], heads.query.shape[0])
  query = jnp.broadcast_to(heads.query, shape)
  query = query.at[..., heads.query_to].set(q[..., heads.query_from])
  key = jnp.broadcast_to(heads.key, shape)
  key = key.at[..., heads.key_to].set(k[..., heads.key_from])
  if config.position == 'rotary':
    cosine, sine = (
      jnp.asarray(table)[:, heads.channel]
      for table in rotary_tables(config, q.shape[1])
    )
    query, key = (
      x * cosine + x[..., heads.partner] * sine for x in (query, key)
    )
  by_head = query[:, None] * heads.slot_of[:, None, :]
  scores = jnp.einsum('bhtu,bsu->bhts', by_head, key)
  scores = scores + heads.constant[:, None, None]
  scores = scores / np.sqrt(config.d_head)
  scores = jnp.where(visible, scores, -jnp.inf)
  highest = jnp.max(scores, axis=-1, keepdims=True)
  if heads.sink is not None:
    highest = jnp.maximum(highest, heads.sink[:, None, None])
  weights = jnp.exp(scores - jax.lax.stop_gradient(highest))
  total = jnp.sum(weights, axis=-1, keepdims=True)
  if heads.sink is not None:
    total = total + jnp.exp(heads.sink[:, None, None] - highest)
  return weights / total


def _attention(config, block, x, visible, keep, layer):
  """Output of the heads that matter, before AbsTopK, (batch, time, columns)."""

  def project(name, linear, hold=True):
    if linear is None:
      return jnp.zeros((*x.shape[:2], 0))
    site = f'{layer}.attn.{name}'
    values = keep.compete(site, _product(x, linear), linear.kept)
    return keep.hold(site, values, linear.mean) if hold else values

  # Of a closed circuit, removed values are constant after they are mixed.
  v = project('v', block.v, hold=not keep.closed)
  if block.heads is None:
    return jnp.zeros((*x.shape[:2], 0)) @ block.out.kernel + block.out.bias
  q, k = project('q', block.q), project('k', block.k)
  weights = _patterns(config, block.heads, q, k, visible)
  y = jnp.einsum('bnts,bsn->btn', weights[:, block.heads.value_head], v)
  if keep.closed and block.v is not None:
    y = keep.hold(f'{layer}.attn.v', y, block.v.mean)
  out = _product(y, block.out)
  if block.heads.total_kernel is not None:
    total = jnp.sum(weights, axis=-1)
    out = out + jnp.einsum('bht,hc->btc', total, block.heads.total_kernel)
  return out


def _mlp(config, block, x, keep, layer):
  """Output of the kept neurons, before AbsTopK, (batch, time, columns)."""
  if block.neurons is None:
    hidden = jnp.zeros((*x.shape[:2], 0))
  else:
    neurons, site = block.neurons, f'{layer}.mlp.post_act'
    hidden = activate(config, _product(x, neurons))
    hidden = keep.settle(site, hidden, neurons.kept, neurons.mean)
  return _product(hidden, block.out)


def _run_block(config, block, x, stream, tokens, visible, kind, keep, layer):
  """x plus what half a block makes of the stream; kind is 'attn' or 'mlp'."""
  if block.out is not None:
    if block.read is None:
      inputs = jnp.zeros((*x.shape[:2], 0))
    else:
      read, site = block.read, f'{layer}.{kind}.act_in'
      inputs = _read(config, read, stream, tokens)
      inputs = keep.settle(site, inputs, read.kept, read.mean)
    if kind == 'attn':
      delta = _attention(config, block, inputs, visible, keep, layer)
    else:
      delta = _mlp(config, block, inputs, keep, layer)
    out, site = block.out, f'{layer}.{kind}.resid_delta'
    delta = keep.settle(site, delta, out.kept, out.mean)
    x = (x + block.constant).at[..., block.write].add(delta)
  else:
    x = x + block.constant
  if config.residual_activation == 'relu':
    x = jax.nn.relu(x)
  return sparsify(config, f'resid_post_{kind}', x)


def _unembed(config, unembed, x, tokens, keep):
  x = x[..., unembed.channels]
  if unembed.mean is not None:
    x = keep.hold('final_resid', x, unembed.mean)
  rest = unembed.rest_count
  centre, factor = jnp.zeros(()), jnp.ones(())
  if config.norm == 'rms':
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    square = square + unembed.rest_spread + rest * unembed.rest_mean**2
    factor = jax.lax.rsqrt(square / config.d_model + config.norm_epsilon)
  if config.norm == 'layer':
    total = jnp.sum(x, axis=-1, keepdims=True) + rest * unembed.rest_mean
    centre = total / config.d_model
    square = jnp.sum(jnp.square(x - centre), axis=-1, keepdims=True)
    rest_square = unembed.rest_spread + rest * (unembed.rest_mean - centre) ** 2
    variance = (square + rest_square) / config.d_model
    factor = jax.lax.rsqrt(variance + config.norm_epsilon)
  logits = ((x - centre) * factor * unembed.gain) @ unembed.kernel
  constant = unembed.rest_logits - centre * unembed.rest_gain
  logits = logits + factor * constant + unembed.bias
  if unembed.bigram_table is not None:
    logits = logits + unembed.bigram_table[tokens]
  return logits


def apply(
  small: SmallModel,
  tokens: Int[Array, 'batch time'],
  positions: Int[Array, 'batch'] | None = None,
  gates: Gates | None = None,
  lengths: Int[Array, 'batch'] | None = None,
) -> Float[Array, '...']:
  """Logits of a circuit.

  Args:
    small: what `extract` made of a circuit.
    tokens: ids.
    positions: one time index per sequence at which logits are wanted; None
      for all.
    gates: {site: gates of the kept nodes, in their order}, to remove further
      nodes; sites that are absent keep all of theirs.
    lengths: number of tokens per sequence, as in `GPT`; None: all count.

  Returns:
    Float32 logits, (batch, time, outputs) or, with positions, (batch, outputs).
  """
  config = small.config
  x = small.embedding[tokens]
  if small.added is not None:
    x = x + small.added[: tokens.shape[1]]
  seen = keys_seen(config, tokens.shape[1], lengths)
  visible = visible_keys(seen[:, None], tokens.shape[1])

  keep = Keep(small.closed, competing_sites(config), gates or {})
  for i, block in enumerate(small.blocks):
    kind = 'mlp' if i % 2 else 'attn'
    if kind == 'attn' or not config.parallel_residual:
      stream = x
    x = _run_block(
      config,
      block,
      x,
      stream,
      tokens,
      visible,
      kind,
      keep,
      layer=i // 2,
    )
  if positions is not None:
    x = jnp.take_along_axis(x, positions[:, None, None], axis=1)
    tokens = jnp.take_along_axis(tokens, positions[:, None], axis=1)
  logits = _unembed(config, small.unembed, x, tokens, keep)
  return logits if positions is None else logits[:, 0]
