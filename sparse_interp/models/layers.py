"""The pure modules of a block: norm, attention and MLP, seen site by site.

Every module takes `see(site, x)`, called at each named place with the value
after AbsTopK, and at `{site}.raw` with the norm or matrix product that becomes
it; what it returns is what flows on. That one function records activations and
applies edits, so the modules know neither.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.models.config import GPTConfig
from sparse_interp.models.products import DENSE, Products, multiply
from sparse_interp.ops.attention.attention import attention
from sparse_interp.ops.row_sparse.row_sparse import (
  RowSparse,
  row_sparse_matmul,
)
from sparse_interp.ops.topk.topk import abs_topk

See = Callable[[str, Array], Array]


def sparsify(
  config: GPTConfig, site: str, x: Float[Array, 'batch time width']
) -> Float[Array, 'batch time width']:
  """AbsTopK where the configuration has it at this site, else identity."""
  k = config.kept_activations(site, x.shape[-1])
  return x if k is None else abs_topk(x, k)


class Norm(nn.Module):
  """RMSNorm (gain), LayerNorm (gain, bias if any) or identity, float32."""

  config: GPTConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch time width']
  ) -> Float[Array, 'batch time width']:
    if self.config.norm == 'none':
      return x
    x = x.astype(jnp.float32)
    width = (x.shape[-1],)
    epsilon = self.config.norm_epsilon
    scale = self.param('scale', nn.initializers.ones, width)
    if self.config.norm == 'rms':
      mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
      return x * jax.lax.rsqrt(mean_square + epsilon) * scale
    bias = 0.0
    if self.config.norm_bias:
      bias = self.param('bias', nn.initializers.zeros, width)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + epsilon) * scale + bias


def linear(
  module: nn.Module, width: int, stddev: float, name: str, x: Array
) -> Float[Array, 'batch time width']:
  """x times a matrix of the module, plus its bias if there is one.

  Where the parameters hold a `RowSparse` as the kernel, see `models.frozen`,
  the product takes its few weights; else this is `nn.Dense`, whose product is
  that of `module.products`. How many blocks are not zero is sown.
  """
  config = module.config
  sparse = frozen_kernel(module, name)
  if sparse is not None:
    y = row_sparse_matmul(x.astype(config.dtype), sparse)
    if not config.use_bias:
      return y
    return y + module.get_variable('params', name)['bias'].astype(config.dtype)

  def product(x, kernel, *_, **__):
    y, kept = multiply(module.products, x, kernel)
    if kept is not None:
      module.sow('occupancy', f'{name}_blocks', kept)
    return y

  return nn.Dense(
    width,
    use_bias=config.use_bias,
    dtype=config.dtype,
    kernel_init=nn.initializers.normal(stddev),
    dot_general=product,
    name=name,
  )(x)


def frozen_kernel(module: nn.Module, name: str) -> RowSparse | None:
  """The kernel of a child of this name, if it is a `RowSparse`."""
  if not module.has_variable('params', name):
    return None
  kernel = module.get_variable('params', name).get('kernel')
  return kernel if isinstance(kernel, RowSparse) else None


def _write_stddev(config: GPTConfig) -> float:
  """Initial scale of matrices that write to the residual stream (GPT-2)."""
  return 0.02 / np.sqrt(2 * config.n_layer)


def activate(
  config: GPTConfig, x: Float[Array, '*batch neurons']
) -> Float[Array, '*batch neurons']:
  """The nonlinearity of the neurons."""
  if config.activation == 'relu':
    return jax.nn.relu(x)
  return jax.nn.gelu(x, approximate=config.activation == 'gelu_tanh')


def keys_seen(
  config: GPTConfig, time: int, lengths: Int[Array, 'batch'] | None
) -> Int[Array | np.ndarray, '#batch time']:
  """How many keys, from the first on, a query sees: up to its own, or all.

  Args:
    config: the model; `causal` is what counts.
    time: length of the arrays.
    lengths: keys at this position and later are invisible; at least 1. None:
      no sequence is padded.
  """
  seen = np.full((1, time), time)
  if config.causal:
    seen = 1 + np.arange(time)[None]
  if lengths is None:
    return seen
  return jnp.minimum(seen, lengths[:, None])


def rotary_partner(config: GPTConfig) -> Int[np.ndarray, 'd_head']:
  """The channel of a head that each of its channels is rotated with.

  Channels in the first half of the rotated ones pair with those in the second;
  what is not rotated is its own partner.
  """
  rotated = config.d_rotary
  partner = np.arange(config.d_head)
  partner[:rotated] = np.roll(partner[:rotated], rotated // 2)
  return partner


def rotary_tables(
  config: GPTConfig, time: int
) -> tuple[Float[np.ndarray, 'time d_head'], Float[np.ndarray, 'time d_head']]:
  """What a channel and its partner are multiplied with, by position.

  A rotated channel becomes cosine * x + sine * x[partner]; the sine has a minus
  in the first half (Su et al., arXiv 2104.09864, in the layout of GPT-NeoX).

  Returns:
    Cosines and signed sines, float32; 1 and 0 where nothing is rotated.
  """
  half = config.d_rotary // 2
  cosine, sine = np.ones((time, config.d_head)), np.zeros((time, config.d_head))
  if half:
    speed = config.rotary_base ** -(np.arange(half) / half)
    angles = np.arange(time)[:, None] * speed
    cosine[:, : 2 * half] = np.tile(np.cos(angles), 2)
    sine[:, :half], sine[:, half : 2 * half] = -np.sin(angles), np.sin(angles)
  return cosine.astype(np.float32), sine.astype(np.float32)


def rotate(
  config: GPTConfig, x: Float[Array, 'batch time heads d_head']
) -> Float[Array, 'batch time heads d_head']:
  """Queries or keys, turned by their position; see `rotary_tables`."""
  cosine, sine = (t[:, None] for t in rotary_tables(config, x.shape[1]))
  rotated = cosine * x + sine * x[..., rotary_partner(config)]
  return rotated.astype(x.dtype)


class Attention(nn.Module):
  """Attention of one block, from its input to what it adds to the stream."""

  config: GPTConfig
  products: Products = DENSE

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'batch time width'],
    seen: Int[Array | np.ndarray, '#batch time'],
    see: See,
  ) -> Float[Array, 'batch time d_model']:
    config = self.config
    x = see('attn.act_in.raw', x)
    x = see('attn.act_in', sparsify(config, 'attn_in', x))
    qkv = linear(self, 3 * config.d_attn, 0.02, 'c_attn', x)
    heads = []
    for name, part in zip('qkv', jnp.split(qkv, 3, axis=-1), strict=True):
      part = see(f'attn.{name}.raw', part)
      # AbsTopK acts on the flat vector: all heads compete.
      part = see(f'attn.{name}', sparsify(config, f'attn_{name}', part))
      heads.append(part.reshape(*part.shape[:2], -1, config.d_head))
    if config.position == 'rotary':
      heads[:2] = (rotate(config, part) for part in heads[:2])
    sink = None
    if config.sink:
      sink = self.param('sink_logit', nn.initializers.zeros, (config.n_heads,))
    y = attention(*heads, seen, sink)
    y = see('attn.y', y.reshape(*y.shape[:2], -1))
    delta = linear(self, config.d_model, _write_stddev(config), 'c_proj', y)
    delta = see('attn.resid_delta.raw', delta)
    return see('attn.resid_delta', sparsify(config, 'attn_out', delta))


class MLP(nn.Module):
  """MLP of one block, from its input to what it adds to the stream."""

  config: GPTConfig
  products: Products = DENSE

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch time width'], see: See
  ) -> Float[Array, 'batch time d_model']:
    config = self.config
    x = see('mlp.act_in.raw', x)
    x = see('mlp.act_in', sparsify(config, 'mlp_in', x))
    x = linear(self, config.mlp_width, 0.02, 'c_fc', x)
    x = see('mlp.post_act.raw', x)
    x = activate(config, x)
    x = see('mlp.post_act', sparsify(config, 'mlp_neuron', x))
    delta = linear(self, config.d_model, _write_stddev(config), 'c_proj', x)
    delta = see('mlp.resid_delta.raw', delta)
    return see('mlp.resid_delta', sparsify(config, 'mlp_out', delta))


class Block(nn.Module):
  """One block: x += attention(norm(x)), then x += mlp(norm(x)).

  With `parallel_residual`, the norm before the MLP reads the first x, too.
  """

  config: GPTConfig
  products: Products = DENSE

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'batch time d_model'],
    positions: Float[Array, 'time d_position'] | None,
    seen: Int[Array | np.ndarray, '#batch time'],
    see: See,
  ) -> Float[Array, 'batch time d_model']:
    config = self.config

    def read(x, norm, position_norm):
      x = Norm(config, name=norm)(x)
      if positions is None:
        return x
      p = Norm(config, name=position_norm)(positions[None])
      p = jnp.broadcast_to(p, (*x.shape[:2], p.shape[-1]))
      return jnp.concatenate([x, p], axis=-1)

    def add(x, delta, site):
      x = x + delta.astype(jnp.float32)
      relu = config.residual_activation == 'relu'
      return sparsify(config, site, jax.nn.relu(x) if relu else x)

    x = see('resid_in', x)
    attn = Attention(config, self.products, name='attn')
    mlp = MLP(config, self.products, name='mlp')
    before = x
    x = add(x, attn(read(x, 'ln_1', 'ln_p1'), seen, see), 'resid_post_attn')
    x = see('resid_mid', x)
    read_by_mlp = before if config.parallel_residual else x
    return add(
      x, mlp(read(read_by_mlp, 'ln_2', 'ln_p2'), see), 'resid_post_mlp'
    )
