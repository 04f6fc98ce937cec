"""What transformers computes: models of random weights, and their logits.

The recorded cases in tests/data/hf_models were made with torch 2.13.0 (CPU) and
transformers 5.23.0 by

    python -m tests.interop.hugging_face.hf_reference

in the root of the repository. Neither is needed to read them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPT, GPTConfig

DIRECTORY = pathlib.Path(__file__).parents[2] / 'data' / 'hf_models'

_GPT2 = {
  'vocab_size': 61,
  'n_positions': 20,
  'n_embd': 24,
  'n_layer': 2,
  'n_head': 3,
}
_NEOX = {
  'vocab_size': 61,
  'hidden_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'intermediate_size': 80,
  'max_position_embeddings': 20,
}
# {case: (class of transformers, its configuration)}.
CASES = {
  'gpt2': ('GPT2', _GPT2),
  'gpt2_variant': (
    'GPT2',
    {
      **_GPT2,
      'n_inner': 40,
      'activation_function': 'gelu',
      'layer_norm_epsilon': 0.01,
      'tie_word_embeddings': False,
    },
  ),
  'gpt_neox': ('GPTNeoX', {**_NEOX, 'rotary_pct': 0.25}),
  'gpt_neox_variant': (
    'GPTNeoX',
    {
      **_NEOX,
      'rotary_pct': 1.0,
      'rotary_emb_base': 100,
      'hidden_act': 'gelu_fast',
      'use_parallel_residual': False,
      'tie_word_embeddings': True,
    },
  ),
}


def make(kind, scale=0.3, **fields):
  """A model of transformers whose every parameter is drawn anew.

  Args:
    kind: 'GPT2' or 'GPTNeoX'.
    scale: of the matrices, times sqrt(24 / width); gains are near 1.
    **fields: of its configuration.
  """
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  config = getattr(transformers, f'{kind}Config')(**fields)
  name = {'GPT2': 'GPT2LMHeadModel', 'GPTNeoX': 'GPTNeoXForCausalLM'}[kind]
  torch.manual_seed(0)
  model = getattr(transformers, name)(config).eval()
  scale = scale * (24 / config.hidden_size) ** 0.5
  with torch.no_grad():
    for parameter in model.parameters():
      gain = float(parameter.ndim == 1 and bool((parameter == 1).all()))
      parameter.normal_(gain, scale)
  return model


def draw_tokens(vocab_size, batch=2, time=20):
  return np.random.default_rng(0).integers(0, vocab_size, (batch, time))


def logits(model, tokens):
  torch = pytest.importorskip('torch')
  with torch.no_grad():
    return model(torch.from_numpy(tokens)).logits.numpy()


def our_logits(config: GPTConfig, params, tokens):
  run = jax.jit(lambda p, t: GPT(config).apply({'params': p}, t)[0])
  with jax.default_matmul_precision('highest'):
    return np.asarray(run(params, jnp.asarray(tokens, jnp.int32)))


def record() -> None:
  """Writes every case: config.json, model.safetensors and io.npz."""
  for case, (kind, fields) in CASES.items():
    model = make(kind, **fields)
    tokens = draw_tokens(fields['vocab_size'])
    model.save_pretrained(DIRECTORY / case)
    (DIRECTORY / case / 'generation_config.json').unlink(missing_ok=True)
    np.savez_compressed(
      DIRECTORY / case / 'io.npz',
      tokens=tokens.astype(np.int16),
      logits=logits(model, tokens),
    )


if __name__ == '__main__':
  record()
