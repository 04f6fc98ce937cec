"""GPT-NeoX, and so Pythia, from Hugging Face directories, and back.

The files keep kernels as (outputs, inputs), and rows of q, k and v by head: q,
k and v of the first head, then of the second. Here it is q of all heads, then
k, then v.

Source: Black et al. 2022 (arXiv 2204.06745), Biderman et al. 2023 (arXiv
2304.01373), and `GPTNeoXForCausalLM` of transformers.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from sparse_interp.interop.hugging_face import hf_config, hf_tensors
from sparse_interp.interop.hugging_face.hf_tensors import Weight
from sparse_interp.models import GPTConfig

_KNOWN = (
  'head_dim',
  'hidden_act',
  'hidden_size',
  'intermediate_size',
  'layer_norm_eps',
  'max_position_embeddings',
  'num_attention_heads',
  'num_hidden_layers',
  'rope_parameters',
  'rope_theta',
  'rotary_emb_base',
  'rotary_pct',
  'tie_word_embeddings',
  'use_parallel_residual',
  'vocab_size',
)
_FIXED = {'attention_bias': True, 'rope_scaling': {}}
_PREFIX = 'gpt_neox.'
# Causal masks, and the frequencies of rotary positions.
_BUFFERS = r'layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)'
_UNEMBED = 'embed_out.weight'


def load_config(directory: str | os.PathLike) -> GPTConfig:
  """Reads config.json alone; see `load`."""
  return _config(hf_config.read_config(directory, 'gpt_neox', _KNOWN, _FIXED))


def load(directory: str | os.PathLike) -> tuple[GPTConfig, dict[str, Any]]:
  """Reads config.json and safetensors, whole or sharded.

  Args:
    directory: that holds them; names may begin with `gpt_neox.`, and with
      what `tensor_names` knows.

  Returns:
    The architecture, and its parameters in float32, as `GPT(config).init`
    shapes them. bfloat16 and float16 are widened.

  Raises:
    ValueError: if the files are damaged, not of a GPT-NeoX, or of one that
      computes something that our model does not.
  """
  config = load_config(directory)
  with hf_tensors.open_tensors(directory, _PREFIX, _UNEMBED) as tensors:
    params = hf_tensors.read_params(
      tensors,
      weights(config),
      _BUFFERS,
      _UNEMBED,
      'embed_in.weight',
      config.tied_unembed,
    )
  return config, params


def save(
  directory: str | os.PathLike, config: GPTConfig, params: dict[str, Any]
) -> None:
  """Writes what `load` and transformers read.

  Args:
    directory: is made if it is not there; its old model is replaced.
    config: of a model that GPT-NeoX can be: layer norms, rotary positions,
      dense activations, biases.
    params: its parameters.

  Raises:
    ValueError: if GPT-NeoX cannot be that model.
  """
  fields = _fields(config)
  read = _config(hf_config.Fields(hf_config.CONFIG, fields))
  hf_config.check_same(config, read, 'GPT-NeoX')
  hf_tensors.write(
    directory,
    fields,
    params,
    weights(config),
    lambda name: name if name == _UNEMBED else _PREFIX + name,
  )


def _config(fields: hf_config.Fields) -> GPTConfig:
  width = fields.get('hidden_size', int)
  heads = fields.get('num_attention_heads', int)
  d_head = hf_config.head_width(fields.path, width, heads)
  if fields.get('head_dim', int, d_head) != d_head:
    raise hf_config.refusal(
      fields.path,
      f'have head_dim {d_head}, hidden_size / num_attention_heads',
      str(fields.get('head_dim', int)),
      'use another model',
    )
  fraction, base = _rotation(fields)
  return GPTConfig(
    vocab_size=fields.get('vocab_size', int),
    n_layer=fields.get('num_hidden_layers', int),
    d_model=width,
    d_head=d_head,
    n_head=heads,
    d_mlp=fields.get('intermediate_size', int),
    context_length=fields.get('max_position_embeddings', int, 2048),
    norm='layer',
    norm_eps=fields.get('layer_norm_eps', float, 1e-5),
    activation=fields.choose('hidden_act', hf_config.ACTIVATIONS, 'gelu'),
    parallel_residual=fields.get('use_parallel_residual', bool, True),
    tied_unembed=fields.get('tie_word_embeddings', bool, False),
    activation_density=None,
    bigram_table=False,
    position='rotary',
    rotary_fraction=fraction,
    rotary_base=base,
  )


def _rotation(fields: hf_config.Fields) -> tuple[float, float]:
  """(share of channels, base): alone in old files, together in new ones."""
  base = fields.get('rotary_emb_base', float, 10000.0)
  base = fields.get('rope_theta', float, base)
  fraction = fields.get('rotary_pct', float, 0.25)
  values = fields.get('rope_parameters', dict, {})
  together = hf_config.Fields(fields.path, values)
  names = {'rope_type', 'type', 'rope_theta', 'partial_rotary_factor'}
  odd = sorted(set(values) - names)
  for name in ('rope_type', 'type'):
    if together.get(name, str, 'default') != 'default':
      odd.append(name)
  if odd:
    raise hf_config.refusal(
      fields.path,
      'have rope_parameters of the default kind',
      f'{odd[0]}={hf_config.short(values[odd[0]])}',
      'that changes what the model computes; use another model',
    )
  return (
    together.get('partial_rotary_factor', float, fraction),
    together.get('rope_theta', float, base),
  )


def _fields(config: GPTConfig) -> dict[str, Any]:
  return {
    'architectures': ['GPTNeoXForCausalLM'],
    'model_type': 'gpt_neox',
    'vocab_size': config.vocab_size,
    'num_hidden_layers': config.n_layer,
    'hidden_size': config.d_model,
    'num_attention_heads': config.n_heads,
    'intermediate_size': config.mlp_width,
    'max_position_embeddings': config.context_length,
    'layer_norm_eps': config.norm_epsilon,
    'hidden_act': hf_config.activation_name(config),
    'use_parallel_residual': config.parallel_residual,
    'rotary_pct': config.rotary_fraction,
    'rotary_emb_base': config.rotary_base,
    'tie_word_embeddings': config.tied_unembed,
  }


def weights(config: GPTConfig) -> Iterator[Weight]:
  """The tensors of a GPT-NeoX, and where they go."""
  width, neurons = config.d_model, config.mlp_width
  embedding = (config.vocab_size, width)
  yield Weight('embed_in.weight', ('wte', 'embedding'), embedding)
  heads = config.n_heads
  for layer in range(config.n_layer):
    there, here = f'layers.{layer}', f'h_{layer}'
    yield from _norm(f'{there}.input_layernorm', (here, 'ln_1'), width)
    yield from _norm(f'{there}.post_attention_layernorm', (here, 'ln_2'), width)
    name, path = f'{there}.attention.query_key_value', (here, 'attn', 'c_attn')
    yield Weight(
      f'{name}.weight',
      (*path, 'kernel'),
      (3 * width, width),
      lambda w: _swap(w, heads, 3).T,
      lambda w: _swap(w.T, 3, heads),
    )
    yield Weight(
      f'{name}.bias',
      (*path, 'bias'),
      (3 * width,),
      lambda b: _swap(b, heads, 3),
      lambda b: _swap(b, 3, heads),
    )
    for name, block, matrix, inputs, outputs in (
      ('attention.dense', 'attn', 'c_proj', width, width),
      ('mlp.dense_h_to_4h', 'mlp', 'c_fc', width, neurons),
      ('mlp.dense_4h_to_h', 'mlp', 'c_proj', neurons, width),
    ):
      name, path = f'{there}.{name}', (here, block, matrix)
      yield _kernel(f'{name}.weight', (*path, 'kernel'), (outputs, inputs))
      yield Weight(f'{name}.bias', (*path, 'bias'), (outputs,))
  yield from _norm('final_layer_norm', ('ln_f',), width)
  if not config.tied_unembed:
    yield _kernel(_UNEMBED, ('lm_head', 'kernel'), embedding)


def _swap(rows: np.ndarray, outer: int, inner: int) -> np.ndarray:
  """Exchanges the two outermost of the three indices that rows have."""
  parts = rows.reshape(outer, inner, -1, *rows.shape[1:])
  return parts.swapaxes(0, 1).reshape(rows.shape)


def _kernel(name: str, path: tuple[str, ...], shape: tuple[int, int]) -> Weight:
  return Weight(name, path, shape, np.transpose, np.transpose)


def _norm(name: str, path: tuple[str, ...], width: int) -> Iterator[Weight]:
  yield Weight(f'{name}.weight', (*path, 'scale'), (width,))
  yield Weight(f'{name}.bias', (*path, 'bias'), (width,))
