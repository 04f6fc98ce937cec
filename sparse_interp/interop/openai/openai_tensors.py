"""Names and shapes of the tensors of a released checkpoint, and where they go.

Matrices are stored as torch does, outputs first; ours have inputs first.
"""

from typing import NamedTuple

from sparse_interp.models import GPTConfig


class Slot(NamedTuple):
  """A tensor of a checkpoint.

  Attributes:
    path: its keys in our tree of parameters.
    shape: as stored.
    transposed: whether our array is its transpose.
  """

  path: tuple[str, ...]
  shape: tuple[int, ...]
  transposed: bool = False


def slots(config: GPTConfig) -> dict[str, Slot]:
  """{released name: where it goes} of all tensors of a model, in their order.

  With a tied unembedding, `lm_head.weight` is another name of the embedding
  and not listed; frozen sinusoids are not listed, either.
  """
  vocab, width = config.vocab_size, config.d_model
  table = {'transformer.wte.weight': Slot(('wte', 'embedding'), (vocab, width))}
  if config.position in ('added', 'concat'):
    channels = config.d_position or width
    shape = config.context_length, channels
    table['transformer.wpe.weight'] = Slot(('wpe', 'embedding'), shape)
  for layer in range(config.n_layer):
    table |= _block(config, layer)
  table |= _norm(config, 'transformer.ln_f', ('ln_f',), width)
  if not config.tied_unembed:
    table['lm_head.weight'] = Slot(('lm_head', 'kernel'), (vocab, width), True)
  if config.bigram_table:
    table['bigram_table'] = Slot(('bigram_table',), (vocab, vocab))
  if config.final_logits_bias:
    table['final_logits_bias'] = Slot(('final_logits_bias',), (vocab,))
  return table


def _block(config, layer):
  theirs, ours = f'transformer.h.{layer}', f'h_{layer}'
  width, inputs, heads = config.d_model, config.block_input_width, config.d_attn
  norms = {'ln_1': width, 'ln_2': width}
  if config.position.startswith('concat'):
    norms |= {'ln_p1': config.d_position, 'ln_p2': config.d_position}
  table = {}
  for name, size in norms.items():
    table |= _norm(config, f'{theirs}.{name}', (ours, name), size)
  for part, name, shape in (
    ('attn', 'c_attn', (3 * heads, inputs)),
    ('attn', 'c_proj', (width, heads)),
    ('mlp', 'c_fc', (config.mlp_width, inputs)),
    ('mlp', 'c_proj', (width, config.mlp_width)),
  ):
    path, prefix = (ours, part, name), f'{theirs}.{part}.{name}'
    table[f'{prefix}.weight'] = Slot((*path, 'kernel'), shape, True)
    if config.use_bias:
      table[f'{prefix}.bias'] = Slot((*path, 'bias'), shape[:1])
  if config.sink:
    table[f'{theirs}.attn.attn_imp.sink_logit'] = Slot(
      (ours, 'attn', 'sink_logit'), (config.n_heads,)
    )
  return table


def _norm(config, theirs, path, size):
  table = {f'{theirs}.weight': Slot((*path, 'scale'), (size,))}
  if config.norm == 'layer' and config.norm_bias:
    table[f'{theirs}.bias'] = Slot((*path, 'bias'), (size,))
  return table
