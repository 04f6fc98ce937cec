"""Small random models in the released format, in every configuration."""

import json

import numpy as np

from sparse_interp.interop.torch_file import torch_file

ALL_SITES = 'attn_in,attn_out,mlp_in,mlp_out,mlp_neuron,attn_v,attn_k,attn_q'
BASE = {
  'block_size': 12,
  'vocab_size': 24,
  'n_layer': 2,
  'n_head': 4,
  'd_head': 8,
  'd_model': 32,
  'd_mlp': 48,
  'dropout': 0.0,
  'bias': True,
  'ln_bias': True,
  'rms_norm': True,
  'residual_activation_type': 'identity',
  'activation_type': 'gelu',
  'afrac': 0.25,
  'afrac_loctypes': ALL_SITES,
  'debug_nans': False,
  'tied_unembed': False,
  'tokenizer_name': 'tinypython_2k',
  'grad_checkpointing': False,
  'enable_bigram_table': True,
  'learnable_bigram_table': True,
  'd_pos_emb': None,
  'dropout_cat_pos_emb': False,
  'sinusoidal_cat_pos_emb': False,
  'enable_sparse_kernels': False,
  'flash': True,
  'sink': False,
}


def random_state(fields, seed=0):
  """{released name: array} of the shapes in the reference, all nonzero."""
  f = {**BASE, **fields}
  rng = np.random.default_rng(seed)
  width, vocab, extra = f['d_model'], f['vocab_size'], f['d_pos_emb'] or 0
  heads = f['n_head'] * (f['d_head'] or width // f['n_head'])
  neurons = f['d_mlp'] or 4 * width
  state = {}

  def put(name, *shape, around=0.0):
    values = around + 0.3 * rng.standard_normal(shape)
    state[name] = values.astype(np.float32)

  def norm(name, size):
    put(f'{name}.weight', size, around=1.0)
    if not f['rms_norm'] and f['ln_bias']:
      put(f'{name}.bias', size)

  def linear(name, outputs, inputs):
    put(f'{name}.weight', outputs, inputs)
    if f['bias']:
      put(f'{name}.bias', outputs)

  put('transformer.wte.weight', vocab, width)
  put('transformer.wpe.weight', f['block_size'], extra or width)
  for layer in range(f['n_layer']):
    block = f'transformer.h.{layer}'
    norm(f'{block}.ln_1', width)
    if not f['flash']:
      n = f['block_size']
      mask = np.tril(np.ones((1, 1, n, n), np.float32))
      state[f'{block}.attn.bias'] = mask
    linear(f'{block}.attn.c_attn', 3 * heads, width + extra)
    linear(f'{block}.attn.c_proj', width, heads)
    if f['sink']:
      put(f'{block}.attn.attn_imp.sink_logit', f['n_head'])
    norm(f'{block}.ln_2', width)
    linear(f'{block}.mlp.c_fc', neurons, width + extra)
    linear(f'{block}.mlp.c_proj', width, neurons)
    if extra:
      norm(f'{block}.ln_p1', extra)
      norm(f'{block}.ln_p2', extra)
  norm('transformer.ln_f', width)
  put('lm_head.weight', vocab, width)
  if f['tied_unembed']:
    state['lm_head.weight'] = state['transformer.wte.weight']
  put('final_logits_bias', vocab)
  if f['enable_bigram_table']:
    put('bigram_table', vocab, vocab)
  return state


def write(directory, fields, state, drop=()):
  """Writes a released model; `drop` names fields to leave out."""
  directory.mkdir(exist_ok=True)
  fields = {k: v for k, v in {**BASE, **fields}.items() if k not in drop}
  (directory / 'beeg_config.json').write_text(json.dumps(fields))
  torch_file.write(directory / 'final_model.pt', state)
  return fields
