"""The released model in plain numpy, float64, from its description alone.

Written from the reference of the release formats: names and shapes of tensors,
fields of the configuration, and what the published forward pass does with them;
nothing of the package is used.
"""

import math

import numpy as np

_DEFAULTS = {
  'd_head': None,
  'd_mlp': None,
  'bias': True,
  'ln_bias': True,
  'rms_norm': False,
  'residual_activation_type': 'identity',
  'activation_type': 'gelu',
  'afrac': None,
  'afrac_loctypes': 'attn_in,attn_out,mlp_in,mlp_out',
  'tied_unembed': True,
  'enable_bigram_table': False,
  'd_pos_emb': None,
  'sink': False,
}
_erf = np.vectorize(math.erf)


def forward(fields, state, tokens):
  """Logits and activations by hook name, as the published code records them.

  Args:
    fields: of beeg_config.json, with or without defaults.
    state: {released name: array}.
    tokens: (batch, time) ids.
  """
  fields = {**_DEFAULTS, **fields}
  state = {k: np.asarray(v, np.float64) for k, v in state.items()}
  seen = {}

  def sparse(x, place):
    if fields['afrac'] is None:
      return x
    if place not in fields['afrac_loctypes'].split(','):
      return x
    k = int(fields['afrac'] * x.shape[-1])
    order = np.argsort(-np.abs(x), axis=-1, kind='stable')[..., :k]
    kept = np.zeros_like(x)
    values = np.take_along_axis(x, order, -1)
    np.put_along_axis(kept, order, values, -1)
    return kept

  def norm(x, name):
    gain = state[f'{name}.weight']
    if fields['rms_norm']:
      square = np.mean(x**2, -1, keepdims=True)
      return x / np.sqrt(square + np.finfo(np.float32).eps) * gain
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5) * gain
    return x + state[f'{name}.bias'] if fields['ln_bias'] else x

  def linear(x, name):
    y = x @ state[f'{name}.weight'].T
    return y + state[f'{name}.bias'] if fields['bias'] else y

  def see(name, x):
    seen[name] = x
    return x

  def attend(block, layer, x):
    x = see(f'{layer}.attn.act_in', sparse(x, 'attn_in'))
    parts = np.split(linear(x, f'{block}.attn.c_attn'), 3, -1)
    heads = []
    for part, name in zip(parts, 'qkv', strict=True):
      part = see(f'{layer}.attn.{name}', sparse(part, f'attn_{name}'))
      split = part.reshape(*part.shape[:2], fields['n_head'], -1)
      heads.append(split.transpose(0, 2, 1, 3))
    q, k, v = heads
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1])
    time = scores.shape[-1]
    weights = np.exp(scores) * np.tril(np.ones((time, time)))
    total = weights.sum(-1, keepdims=True)
    if fields['sink']:
      logit = state[f'{block}.attn.attn_imp.sink_logit']
      total = total + np.exp(logit)[:, None, None]
    y = (weights / total @ v).transpose(0, 2, 1, 3)
    y = see(f'{layer}.attn.y', y.reshape(*y.shape[:2], -1))
    y = sparse(linear(y, f'{block}.attn.c_proj'), 'attn_out')
    return see(f'{layer}.attn.resid_delta', y)

  def think(block, layer, x):
    x = see(f'{layer}.mlp.act_in', sparse(x, 'mlp_in'))
    x = linear(x, f'{block}.mlp.c_fc')
    if fields['activation_type'] == 'gelu':
      x = x * 0.5 * (1 + _erf(x / math.sqrt(2)))
    else:
      x = np.maximum(x, 0)
    x = see(f'{layer}.mlp.post_act', sparse(x, 'mlp_neuron'))
    x = sparse(linear(x, f'{block}.mlp.c_proj'), 'mlp_out')
    return see(f'{layer}.mlp.resid_delta', x)

  def add(x, delta, place):
    x = x + delta
    if fields['residual_activation_type'] == 'relu':
      x = np.maximum(x, 0)
    return sparse(x, place)

  def read(x, block, number):
    x = norm(x, f'{block}.ln_{number}')
    if fields['d_pos_emb'] is None:
      return x
    p = norm(table, f'{block}.ln_p{number}')
    p = np.broadcast_to(p, (*x.shape[:2], p.shape[-1]))
    return np.concatenate([x, p], -1)

  table = state['transformer.wpe.weight'][: tokens.shape[1]]
  x = state['transformer.wte.weight'][tokens]
  if fields['d_pos_emb'] is None:
    x = x + table
  for layer in range(fields['n_layer']):
    block = f'transformer.h.{layer}'
    x = see(f'{layer}.resid_in', x)
    x = add(x, attend(block, layer, read(x, block, 1)), 'resid_post_attn')
    x = see(f'{layer}.resid_mid', x)
    x = add(x, think(block, layer, read(x, block, 2)), 'resid_post_mlp')
  x = see('final_resid', x)
  tied = fields['tied_unembed']
  head = state['transformer.wte.weight' if tied else 'lm_head.weight']
  logits = norm(x, 'transformer.ln_f') @ head.T
  if 'final_logits_bias' in state:
    logits = logits + state['final_logits_bias']
  if fields['enable_bigram_table']:
    logits = logits + state['bigram_table'][tokens]
  return logits, seen
