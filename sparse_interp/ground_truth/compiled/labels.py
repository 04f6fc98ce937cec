"""What every node of a compiled program means, read off its weights.

Tracr names residual channels only. Its heads keep one residual channel in each
key channel and write one with each value channel; its neurons are functions of
the few channels that they read.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices, node_sites

ONE = 'one'


def site_labels(
  config: GPTConfig, params: dict, channels: Sequence[str]
) -> dict[str, tuple[str, ...]]:
  """Names of all nodes.

  Args:
    config: the model.
    params: its parameters.
    channels: names of its residual channels.

  Returns:
    {site: name of each channel}. Residual sites: the names given. A key and
    the query it is multiplied with: the channel the key reads, 'length:2'. A
    value: the channel it is written to. A neuron: what it reads, as in
    'tokens:a | tokens:b', 'length:2 & indices:1', '-closes' or 'opens > 0.25',
    'one' if it is constant. '' where nothing is connected.
  """
  blocks = {
    m.name: np.asarray(m.block(params), np.float64)
    for m in edge_matrices(config)
  }
  result = {}
  for site in node_sites(config):
    layer = site.split('.')[0]
    if site.endswith(('attn.q', 'attn.k')):
      kernel = blocks[f'{layer}.attn.act_in->{layer}.attn.k']
      names = [_join(column, channels) for column in kernel.T]
    elif site.endswith('attn.v'):
      kernel = blocks[f'{layer}.attn.v->{layer}.attn.resid_delta']
      names = [_join(row, channels) for row in kernel]
    elif site.endswith('mlp.post_act'):
      kernel = blocks[f'{layer}.mlp.act_in->{layer}.mlp.post_act']
      names = [_neuron(column, channels) for column in kernel.T]
    else:
      names = channels
    result[site] = tuple(names)
  return result


def _join(
  weights: Float[np.ndarray, 'd_model'], channels: Sequence[str]
) -> str:
  return ' | '.join(channels[i] for i in np.flatnonzero(weights))


def _neuron(
  weights: Float[np.ndarray, 'd_model'], channels: Sequence[str]
) -> str:
  read = [i for i in np.flatnonzero(weights) if channels[i] != ONE]
  bias = sum(weights[i] for i in range(len(channels)) if channels[i] == ONE)
  if not read:
    return ONE if bias else ''
  names = [('-' if weights[i] < 0 else '') + channels[i] for i in read]
  if len(read) == 1 and bias:
    return f'{names[0]} > {-bias / abs(weights[read[0]]):.3g}'
  return (' & ' if bias < 0 else ' | ').join(names)
