"""The weights of a model that lie on a path from its input to its output."""

import numpy as np
from jaxtyping import Bool

from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices


def path_weights(
  config: GPTConfig, params: dict
) -> dict[str, Bool[np.ndarray, '_ _']]:
  """Nonzero weights through which the output can depend on the input.

  A weight is on a path if its source can be reached from the embedding or the
  positions, and the output from its target, over nonzero weights. A query
  channel leads on if the key channel it is multiplied with is not always 0
  (it is reached, too, or has a bias), and the other way round, and if its head
  carries something: one of its values is reached and leads to the output (or,
  with a sink, is not always 0). Norms, AbsTopK and dead neurons are not looked
  at.

  Args:
    config: the model; untied and without bigram table the answer is complete.
    params: its parameters.

  Returns:
    {name of an EdgeMatrix: mask of its shape}.

  Raises:
    ValueError: if the model has rotary positions or a parallel residual.
  """
  for field, other in (('position', 'rotary'), ('parallel_residual', True)):
    if getattr(config, field) == other:
      raise ValueError(
        f'model.{field} must not be {other!r} for paths to be followed, got '
        f'{getattr(config, field)!r}; use another model.'
      )
  return _Paths(config, params).masks()


class _Paths:
  """Reachability of channels, forward and then backward."""

  def __init__(self, config, params):
    self.config, self.params = config, params
    self.weights = {
      m.name: np.asarray(m.block(params)) != 0 for m in edge_matrices(config)
    }
    self.reached = {}

  def kernel(self, layer, source, target):
    return self.weights[f'{layer}.{source}->{layer}.{target}']

  def biased(self, layer, name):
    """Channels of q, k or v with a nonzero bias."""
    width, i = self.config.d_attn, 'qkv'.index(name)
    if not self.config.use_bias:
      return np.zeros(width, bool)
    bias = self.params[f'h_{layer}']['attn']['c_attn']['bias']
    return np.asarray(bias)[i * width : (i + 1) * width] != 0

  def masks(self):
    self.forward()
    return self.backward()

  def forward(self):
    config, reached = self.config, self.reached
    stream = (np.asarray(self.params['wte']['embedding']) != 0).any(axis=0)
    if config.position == 'added':
      table = np.asarray(self.params['wpe']['embedding'])
      stream = stream | (table != 0).any(axis=0)
    # Concatenated positions follow the residual channels.
    positions = np.ones(config.block_input_width - config.d_model, bool)
    for layer in range(config.n_layer):
      inputs = np.concatenate([stream, positions])
      reached[f'{layer}.attn.act_in'] = inputs
      for name in 'qkv':
        kernel = self.kernel(layer, 'attn.act_in', f'attn.{name}')
        reached[f'{layer}.attn.{name}'] = inputs @ kernel
      products = self.products(layer)
      values = reached[f'{layer}.attn.v']
      if config.sink:
        values = values | (self.biased(layer, 'v') & self.spread(products))
      reached[f'{layer}.attn.y'] = values
      kernel = self.kernel(layer, 'attn.v', 'attn.resid_delta')
      stream = stream | (values @ kernel)
      inputs = np.concatenate([stream, positions])
      reached[f'{layer}.mlp.act_in'] = inputs
      neurons = inputs @ self.kernel(layer, 'mlp.act_in', 'mlp.post_act')
      reached[f'{layer}.mlp.post_act'] = neurons
      kernel = self.kernel(layer, 'mlp.post_act', 'mlp.resid_delta')
      stream = stream | (neurons @ kernel)

  def products(self, layer):
    """Channels whose q-k product depends on the input."""
    q, k = (self.reached[f'{layer}.attn.{name}'] for name in 'qk')
    q_bias, k_bias = self.biased(layer, 'q'), self.biased(layer, 'k')
    return (q & (k | k_bias)) | (k & (q | q_bias))

  def spread(self, channels):
    """Marks all channels of a head of which one is marked."""
    heads = channels.reshape(self.config.n_heads, -1)
    return np.broadcast_to(heads.any(axis=1)[:, None], heads.shape).ravel()

  def backward(self):
    config, masks = self.config, {}
    if config.tied_unembed:
      kernel = np.asarray(self.params['wte']['embedding']).T
    else:
      kernel = np.asarray(self.params['lm_head']['kernel'])
    needed = (kernel != 0).any(axis=1)
    width = config.d_model

    def trace(layer, source, target, reached, leads):
      """Marks the weights between channels; returns sources that lead on."""
      kernel = self.kernel(layer, source, target)
      on_path = kernel & reached[:, None] & leads
      masks[f'{layer}.{source}->{layer}.{target}'] = on_path
      return (kernel & leads).any(axis=1)

    for layer in reversed(range(config.n_layer)):

      def at(site, layer=layer):
        return self.reached[f'{layer}.{site}']

      neurons = trace(
        layer, 'mlp.post_act', 'mlp.resid_delta', at('mlp.post_act'), needed
      )
      inputs = trace(
        layer, 'mlp.act_in', 'mlp.post_act', at('mlp.act_in'), neurons
      )
      needed = needed | inputs[:width]
      values = trace(layer, 'attn.v', 'attn.resid_delta', at('attn.y'), needed)
      # Attention weights matter where a head carries something that varies.
      carried = at('attn.v') | (self.biased(layer, 'v') & config.sink)
      live = self.spread(values & carried) & self.products(layer)
      leads = np.zeros(width, bool)
      for name, target in zip('qkv', (live, live, values), strict=True):
        inputs = trace(
          layer, 'attn.act_in', f'attn.{name}', at('attn.act_in'), target
        )
        leads = leads | inputs[:width]
      needed = needed | leads
    return {m.name: masks[m.name] for m in edge_matrices(config)}
