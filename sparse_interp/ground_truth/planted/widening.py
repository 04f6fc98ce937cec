"""A wider model that does what it did: new channels, heads, neurons, tokens.

All new weights are zero, so new activations are zero and win no place in
AbsTopK over an old one. What a wider model must get right besides is how many
entries AbsTopK keeps, which is a fraction of the width, and RMSNorm, which
averages over it: there, what is written to the old residual channels grows with
the root of the width, so that the mean square, next to its epsilon, stays what
it was, and the gains take it back.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.config import RESIDUAL_SITES

# Sites of AbsTopK by what decides their width.
_RESIDUAL = ('attn_in', 'attn_out', 'mlp_in', 'mlp_out', *RESIDUAL_SITES)
_HEADS = ('attn_q', 'attn_k', 'attn_v')
_NEURONS = ('mlp_neuron',)


def widen(
  config: GPTConfig,
  params: dict,
  tokens: int,
  channels: int,
  heads: int,
  neurons: int,
) -> tuple[GPTConfig, dict]:
  """Adds unused room behind the old channels, heads, neurons and tokens.

  On old tokens, the new model has the old one's logits, to rounding, and its
  activations, but for the factor on the residual stream; logits of new tokens
  are 0. Where two entries tie to rounding, AbsTopK may keep the other one.

  Args:
    config: the model.
    params: its parameters.
    tokens: number of new tokens.
    channels: fewest new residual channels.
    heads: fewest new heads; they have the old width.
    neurons: fewest new neurons in each layer.

  Returns:
    The configuration, with the first widths for which one activation density
    keeps as many entries at each site as before; and float32 parameters.

  Raises:
    ValueError: if the model has a LayerNorm, a tied unembedding, positions, or
      outputs that are not tokens.
  """
  for field, needed in (
    ('norm', ('rms', 'none')),
    ('position', ('none',)),
    ('tied_unembed', (False,)),
    ('d_output', (None,)),
  ):
    if getattr(config, field) not in needed:
      raise ValueError(
        f'model.{field} must be {" or ".join(map(repr, needed))} for the model '
        f'to be widened, got {getattr(config, field)!r}; use another model.'
      )
  wide = dataclasses.replace(
    _wider(config, channels, heads, neurons),
    vocab_size=config.vocab_size + tokens,
  )
  shapes = jax.eval_shape(
    GPT(wide).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1), jnp.int32)
  )['params']
  stretch = 1.0
  if config.norm == 'rms':
    stretch = np.sqrt(wide.d_model / config.d_model)
  grow = functools.partial(_grow, stretch=stretch)
  return wide, jax.tree_util.tree_map_with_path(grow, shapes, params)


def _wider(
  config: GPTConfig, channels: int, heads: int, neurons: int
) -> GPTConfig:
  """The fewest heads, then channels, then neurons that one density allows.

  There always are some: where all widths are multiplied by one integer, the
  density divided by it will do.
  """
  kept = [
    _kept(config, _RESIDUAL, config.d_model),
    _kept(config, _HEADS, config.d_attn),
    _kept(config, _NEURONS, config.mlp_width),
  ]
  for n_head in itertools.count(config.n_heads + heads):
    factor = n_head / config.n_heads
    d_attn = n_head * config.d_head
    for d_model, d_mlp in itertools.product(
      _widths(config.d_model, channels, factor),
      _widths(config.mlp_width, neurons, factor),
    ):
      density = _density(
        config.activation_density, kept, (d_model, d_attn, d_mlp)
      )
      if density == 0.0:
        continue
      return dataclasses.replace(
        config,
        n_head=n_head,
        d_model=d_model,
        d_mlp=d_mlp,
        activation_density=density,
      )
  raise AssertionError('the loop has no end')


def _kept(config: GPTConfig, sites: tuple[str, ...], width: int) -> int | None:
  """Entries that AbsTopK keeps at those of `sites` where it acts, if any."""
  counts = {config.kept_activations(site, width) for site in sites} - {None}
  return counts.pop() if counts else None


def _widths(width: int, more: int, factor: float) -> range:
  """Candidates: from the fewest needed to a little beyond the factor."""
  return range(width + more, int(width * factor) + width // 8 + more + 1)


def _density(
  old: float | None, kept: list[int | None], widths: tuple[int, ...]
) -> float | None:
  """A density that keeps `kept` entries of these widths; 0 where none does."""
  pairs = [
    (k, width) for k, width in zip(kept, widths, strict=True) if k is not None
  ]
  if not pairs:
    return old
  lowest = max(k / width for k, width in pairs)
  end = min((k + 1) / width for k, width in pairs)
  density = (lowest + end) / 2
  fits = all(int(density * width) == k for k, width in pairs)
  return density if lowest < end and fits else 0.0


def _grow(
  path: tuple,
  shape: jax.ShapeDtypeStruct,
  old: Array | np.ndarray,
  stretch: float,
) -> Float[Array, '...']:
  """An old parameter, with zeros behind it up to its new shape."""
  names = [key.key for key in path]
  old = np.asarray(old, np.float32)
  if names[-1] == 'scale':
    old = old / np.float32(stretch)
  elif 'wte' in names or 'c_proj' in names:
    old = old * np.float32(stretch)
  parts = np.split(old, 3, axis=-1) if 'c_attn' in names else [old]
  widths = (*shape.shape[:-1], shape.shape[-1] // len(parts))
  parts = [
    np.pad(part, [(0, n - m) for n, m in zip(widths, part.shape, strict=True)])
    for part in parts
  ]
  return jnp.asarray(np.concatenate(parts, axis=-1))
