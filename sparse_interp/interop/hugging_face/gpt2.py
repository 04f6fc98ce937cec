"""GPT-2 from Hugging Face directories, and back.

The files keep kernels as (inputs, outputs) and q, k and v in one matrix, as we
do. The unembedding is the embedding unless `tie_word_embeddings` is false.

Source: Radford et al. 2019, and `GPT2LMHeadModel` of transformers.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from sparse_interp.interop.hugging_face import hf_config, hf_tensors
from sparse_interp.interop.hugging_face.hf_tensors import Weight
from sparse_interp.models import GPTConfig

_KNOWN = (
  'activation_function',
  'layer_norm_epsilon',
  'n_embd',
  'n_head',
  'n_inner',
  'n_layer',
  'n_positions',
  'tie_word_embeddings',
  'vocab_size',
)
_FIXED = {
  'scale_attn_by_inverse_layer_idx': False,
  'scale_attn_weights': True,
}
_PREFIX = 'transformer.'
# Causal masks.
_BUFFERS = r'h\.\d+\.attn\.(bias|masked_bias)'
_UNEMBED = 'lm_head.weight'


def load_config(directory: str | os.PathLike) -> GPTConfig:
  """Reads config.json alone; see `load`."""
  return _config(hf_config.read_config(directory, 'gpt2', _KNOWN, _FIXED))


def load(directory: str | os.PathLike) -> tuple[GPTConfig, dict[str, Any]]:
  """Reads config.json and safetensors, whole or sharded.

  Args:
    directory: that holds them; names may begin with `transformer.`, and with
      what `tensor_names` knows.

  Returns:
    The architecture, and its parameters in float32, as `GPT(config).init`
    shapes them. bfloat16 and float16 are widened.

  Raises:
    ValueError: if the files are damaged, not of a GPT-2, or of one that
      computes something that our model does not.
  """
  config = load_config(directory)
  with hf_tensors.open_tensors(directory, _PREFIX, _UNEMBED) as tensors:
    params = hf_tensors.read_params(
      tensors,
      weights(config),
      _BUFFERS,
      _UNEMBED,
      'wte.weight',
      config.tied_unembed,
    )
  return config, params


def save(
  directory: str | os.PathLike, config: GPTConfig, params: dict[str, Any]
) -> None:
  """Writes what `load` and transformers read.

  Args:
    directory: is made if it is not there; its old model is replaced.
    config: of a model that GPT-2 can be: layer norms, added positions, dense
      activations, biases.
    params: its parameters.

  Raises:
    ValueError: if GPT-2 cannot be that model.
  """
  fields = _fields(config)
  read = _config(hf_config.Fields(hf_config.CONFIG, fields))
  hf_config.check_same(config, read, 'GPT-2')
  hf_tensors.write(
    directory,
    fields,
    params,
    weights(config),
    lambda name: name if name == _UNEMBED else _PREFIX + name,
  )


def _config(fields: hf_config.Fields) -> GPTConfig:
  width, heads = fields.get('n_embd', int), fields.get('n_head', int)
  return GPTConfig(
    vocab_size=fields.get('vocab_size', int),
    n_layer=fields.get('n_layer', int),
    d_model=width,
    d_head=hf_config.head_width(fields.path, width, heads),
    n_head=heads,
    d_mlp=fields.get('n_inner', int, 4 * width),
    context_length=fields.get('n_positions', int, 1024),
    norm='layer',
    norm_eps=fields.get('layer_norm_epsilon', float, 1e-5),
    activation=fields.choose(
      'activation_function', hf_config.ACTIVATIONS, 'gelu_new'
    ),
    tied_unembed=fields.get('tie_word_embeddings', bool, True),
    activation_density=None,
    bigram_table=False,
    position='added',
  )


def _fields(config: GPTConfig) -> dict[str, Any]:
  return {
    'architectures': ['GPT2LMHeadModel'],
    'model_type': 'gpt2',
    'vocab_size': config.vocab_size,
    'n_layer': config.n_layer,
    'n_embd': config.d_model,
    'n_head': config.n_heads,
    'n_inner': config.mlp_width,
    'n_positions': config.context_length,
    'layer_norm_epsilon': config.norm_epsilon,
    'activation_function': hf_config.activation_name(config),
    'tie_word_embeddings': config.tied_unembed,
  }


def weights(config: GPTConfig) -> Iterator[Weight]:
  """The tensors of a GPT-2, and where they go."""
  width, neurons = config.d_model, config.mlp_width
  embeddings = ('wte', config.vocab_size), ('wpe', config.context_length)
  for name, rows in embeddings:
    yield Weight(f'{name}.weight', (name, 'embedding'), (rows, width))
  for layer in range(config.n_layer):
    there, here = f'h.{layer}', f'h_{layer}'
    for norm in ('ln_1', 'ln_2'):
      yield from _norm(f'{there}.{norm}', (here, norm), width)
    for block, matrix, inputs, outputs in (
      ('attn', 'c_attn', width, 3 * width),
      ('attn', 'c_proj', width, width),
      ('mlp', 'c_fc', width, neurons),
      ('mlp', 'c_proj', neurons, width),
    ):
      name, path = f'{there}.{block}.{matrix}', (here, block, matrix)
      yield Weight(f'{name}.weight', (*path, 'kernel'), (inputs, outputs))
      yield Weight(f'{name}.bias', (*path, 'bias'), (outputs,))
  yield from _norm('ln_f', ('ln_f',), width)
  if not config.tied_unembed:
    shape = (config.vocab_size, width)
    path = ('lm_head', 'kernel')
    yield Weight(_UNEMBED, path, shape, np.transpose, np.transpose)


def _norm(name: str, path: tuple[str, ...], width: int) -> Iterator[Weight]:
  yield Weight(f'{name}.weight', (*path, 'scale'), (width,))
  yield Weight(f'{name}.bias', (*path, 'bias'), (width,))
