"""The weights of a model of Tracr, as parameters of ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparse_interp.models import GPTConfig


def convert_params(
  config: GPTConfig,
  theirs: Mapping[str, Mapping[str, Any]],
  order: Sequence[int],
  output: Sequence[int],
) -> dict:
  """Parameters in our tree, residual channels and nodes in our order.

  Nodes of a site (of a head, in attention) are sorted by the residual channels
  that they touch, those without weights last.

  Args:
    config: our model.
    theirs: parameters by Haiku's names.
    order: for each of our residual channels, which of theirs it is.
    output: which of theirs the outputs are.

  Returns:
    The tree of `GPT`, float32.
  """
  order = list(order)

  def get(path, name):
    return np.asarray(theirs[path][name], np.float32)

  params: dict[str, Any] = {
    'wte': {'embedding': get('token_embed', 'embeddings')[:, order]},
    'wpe': {'embedding': get('pos_embed', 'embeddings')[:, order]},
    'lm_head': {'kernel': np.zeros((config.d_model, config.output_width))},
  }
  for column, channel in enumerate(output):
    params['lm_head']['kernel'][order.index(channel), column] = 1
  for layer in range(config.n_layer):
    path = f'transformer/layer_{layer}'
    read, bias = {}, {}
    for part in ('query', 'key', 'value'):
      read[part] = get(f'{path}/attn/{part}', 'w')[order]
      bias[part] = get(f'{path}/attn/{part}', 'b')
    project = get(f'{path}/attn/linear', 'w')[:, order]
    keys = _order_in_heads(read['key'].T, config)
    values = _order_in_heads(project, config)
    by_part = {'query': keys, 'key': keys, 'value': values}
    expand = get(f'{path}/mlp/linear_1', 'w')[order]
    reduce = get(f'{path}/mlp/linear_2', 'w')[:, order]
    neurons = _order(np.concatenate([expand.T, reduce], axis=1))
    attn = {
      'c_attn': {
        'kernel': np.concatenate(
          [read[part][:, by_part[part]] for part in by_part], axis=1
        ),
        'bias': np.concatenate([bias[part][by_part[part]] for part in by_part]),
      },
      'c_proj': {
        'kernel': project[values],
        'bias': get(f'{path}/attn/linear', 'b')[order],
      },
    }
    mlp = {
      'c_fc': {
        'kernel': expand[:, neurons],
        'bias': get(f'{path}/mlp/linear_1', 'b')[neurons],
      },
      'c_proj': {
        'kernel': reduce[neurons],
        'bias': get(f'{path}/mlp/linear_2', 'b')[order],
      },
    }
    params[f'h_{layer}'] = {'attn': attn, 'mlp': mlp}
  return _floats(params)


def _floats(tree):
  if isinstance(tree, dict):
    return {key: _floats(value) for key, value in tree.items()}
  return jnp.asarray(tree, jnp.float32)


def _order(weights):
  """Nodes (rows) by the channels they touch; those that touch none last."""

  def key(row):
    touched = np.flatnonzero(weights[row]).tolist()
    return not touched, touched, weights[row].tolist(), row

  return sorted(range(len(weights)), key=key)


def _order_in_heads(weights, config):
  """The same within every head."""
  heads = weights.reshape(config.n_heads, config.d_head, -1)
  return [
    head * config.d_head + row
    for head in range(config.n_heads)
    for row in _order(heads[head])
  ]
