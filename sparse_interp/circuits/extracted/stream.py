"""The residual stream of a small model: which channels, and how it is read."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits.extracted.cutting import Cut, floats, single
from sparse_interp.circuits.extracted.small_arrays import Read
from sparse_interp.models.config import RESIDUAL_SITES, GPTConfig
from sparse_interp.models.gpt import sinusoidal_positions


class Stream(NamedTuple):
  """Channels that the small model computes by position.

  Attributes:
    carried: their numbers, ascending.
    slot: place of each channel among them, or -1.
  """

  carried: Int[np.ndarray, 'carried']
  slot: Int[np.ndarray, 'd_model']


def stream_of(cut: Cut) -> Stream:
  """The stream of a circuit."""
  carried = _carried(cut)
  slot = np.full(cut.config.d_model, -1)
  slot[carried] = np.arange(carried.size)
  return Stream(carried, slot)


def _carried(cut: Cut) -> Int[np.ndarray, 'carried']:
  """Residual channels that the small model has to compute by position."""
  config, used, wide = cut.config, [], False
  for site, kept in cut.nodes.items():
    if site.endswith('act_in'):
      kind = site.split('.')[1]
      width = config.block_input_width
      sparse = config.kept_activations(f'{kind}_in', width) is not None
      wide = wide or (sparse and kept.size > 0 and not cut.closed)
      used.append(kept[kept < config.d_model])
    elif site.endswith('resid_delta') or site == 'final_resid':
      used.append(kept)
  if (
    wide
    or config.norm == 'layer'
    or config.position == 'added'
    or config.residual_activation == 'relu'
    or any(s in RESIDUAL_SITES for s in config.activation_sites)
    or 'final_resid' not in cut.nodes
  ):
    return np.arange(config.d_model)
  return np.unique(np.concatenate(used))


def read(
  cut: Cut,
  stream: Stream,
  constant: Float[np.ndarray, 'd_model'],
  layer: int,
  kind: str,
) -> Read | None:
  """Norm and kept channels of what half a block reads; None without any.

  Args:
    cut: the circuit and its model.
    stream: what is carried.
    constant: what removed nodes have added to the stream before.
    layer: number of the layer.
    kind: 'attn' or 'mlp'.
  """
  config, norm = cut.config, 1 if kind == 'attn' else 2
  kept = cut.nodes[f'{layer}.{kind}.act_in']
  if not kept.size:
    return None
  sparse = None
  if not cut.closed:
    sparse = config.kept_activations(f'{kind}_in', config.block_input_width)
  gain = cut.get(f'h_{layer}', f'ln_{norm}', 'scale')
  bias = cut.get(f'h_{layer}', f'ln_{norm}', 'bias')
  rest_square = None
  if stream.carried.size < config.d_model and config.norm == 'rms':
    rest = np.delete(np.arange(config.d_model), stream.carried)
    embedding = cut.get('wte', 'embedding')[:, rest]
    square = np.sum((embedding + constant[rest]) ** 2, axis=-1)
    rest_square = single(square)
  residual = kept[kept < config.d_model]
  positions = position_channels(config, cut.params, layer, kind)
  if sparse is not None:
    residual = np.arange(config.d_model)
  elif positions is not None:
    positions = positions[:, kept[kept >= config.d_model] - config.d_model]
  return Read(
    None if gain is None else single(gain[stream.carried]),
    None if bias is None else single(bias[stream.carried]),
    rest_square,
    jnp.asarray(stream.slot[residual]),
    None if positions is None else single(positions),
    None if sparse is None else jnp.asarray(kept),
    single(cut.means[f'{layer}.{kind}.act_in'][kept]),
  )


def position_channels(
  config: GPTConfig, params: dict, layer: int, kind: str
) -> Float[np.ndarray, 'context d_position'] | None:
  """Position channels as a block reads them, float64; None without any.

  Args:
    config: the model.
    params: its parameters.
    layer: number of the layer.
    kind: 'attn' or 'mlp'.
  """
  if not config.position.startswith('concat'):
    return None
  if config.position == 'concat_sinusoidal':
    length, width = config.context_length, config.d_position
    table = floats(sinusoidal_positions(length, width))
  else:
    table = floats(params['wpe']['embedding'])
  if config.norm == 'none':
    return table
  norm = params[f'h_{layer}'][{'attn': 'ln_p1', 'mlp': 'ln_p2'}[kind]]
  gain = floats(norm['scale'])
  if config.norm == 'rms':
    square = np.mean(table**2, axis=-1, keepdims=True)
    return table / np.sqrt(square + config.norm_epsilon) * gain
  table = table - table.mean(axis=-1, keepdims=True)
  variance = np.mean(table**2, axis=-1, keepdims=True)
  table = table / np.sqrt(variance + config.norm_epsilon) * gain
  return table + floats(norm['bias']) if 'bias' in norm else table
