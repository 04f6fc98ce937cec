"""The released configuration (`beeg_config.json`) and ours, with its quirks.

Names and defaults are those of the published inference code
(openai/circuit_sparsity, `inference/gpt.py`); released files lack some fields,
have others under older names, and have some that the code no longer knows.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from sparse_interp.files import json_text, whole_file
from sparse_interp.models import GPTConfig

_log = logging.getLogger(__name__)

NAMES = ('beeg_config.json', 'config.json')
_LARGEST = 1 << 20
_POSITIVE, _MAYBE_POSITIVE, _FLAG, _TEXT, _FRACTION = (
  'a positive integer',
  'a positive integer or null',
  'true or false',
  'a string',
  'a number or null',
)
# Kind and default of every field that the published code knows.
_FIELDS = {
  'block_size': (_POSITIVE, 1024),
  'vocab_size': (_POSITIVE, 50304),
  'n_layer': (_POSITIVE, 12),
  'n_head': (_POSITIVE, 12),
  'd_head': (_MAYBE_POSITIVE, None),
  'd_model': (_POSITIVE, 768),
  'dropout': (_FRACTION, 0.0),
  'bias': (_FLAG, True),
  'ln_bias': (_FLAG, True),
  'rms_norm': (_FLAG, False),
  'residual_activation_type': (_TEXT, 'identity'),
  'activation_type': (_TEXT, 'gelu'),
  'afrac': (_FRACTION, None),
  'afrac_loctypes': (_TEXT, 'attn_in,attn_out,mlp_in,mlp_out'),
  'debug_nans': (_FLAG, False),
  'tied_unembed': (_FLAG, True),
  'tokenizer_name': (_TEXT, 'tinypython_2k'),
  'grad_checkpointing': (_FLAG, True),
  'd_mlp': (_MAYBE_POSITIVE, None),
  'enable_bigram_table': (_FLAG, False),
  'learnable_bigram_table': (_FLAG, False),
  'd_pos_emb': (_MAYBE_POSITIVE, None),
  'dropout_cat_pos_emb': (_FLAG, False),
  'sinusoidal_cat_pos_emb': (_FLAG, False),
  'enable_sparse_kernels': (_FLAG, False),
  'flash': (_FLAG, True),
  'sink': (_FLAG, False),
}
_RENAMED = {'n_mlp': 'd_mlp'}
# Fields of released configurations that the published code does not know. In
# the first row a true value would be another model.
_MUST_BE_FALSE = (
  'use_tied_aux_matrix',
  'unembed_rank',
  'mup',
  'scale_invariance',
)
_STRAY = (
  *('bigram_table_rank', 'n_embd', 'pfrac', 'expansion_factor'),
  *('expansion_factor_mlp', 'debug_exact_topk', 'sparse_matmul_impl'),
  *('afrac_ste', 'afrac_ste_only_non_neurons', 'afrac_approx', 'rtopk'),
  *('mup_width_multiplier', 'enable_fp8_linear', 'ignore_dw_grad'),
)
# What Hugging Face's library writes into every config.json.
_BOOKKEEPING = (
  *('architectures', 'auto_map', 'model_type', 'torch_dtype', 'dtype'),
  *('transformers_version', 'bos_token_id', 'eos_token_id', 'pad_token_id'),
  *('use_cache', 'is_decoder', 'tie_word_embeddings', '_name_or_path'),
)


def read_config(directory: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
  """Reads the fields of a released configuration.

  Args:
    directory: of a released model.

  Returns:
    The file, and all fields of the published code, with its defaults for those
    that are missing. Stray fields are left out and logged.

  Raises:
    OSError: if there is no such file, or it cannot be read.
    ValueError: if it is no JSON object, a field is unknown or there twice, or
      has a value that it cannot have.
  """
  path = directory / NAMES[0]
  if not path.exists() and (directory / NAMES[1]).exists():
    path = directory / NAMES[1]
  given = json_text.read_object(path, 'get it again', _LARGEST)
  return path, _complete(path, given)


def _wrong(path, constraint, found):
  return ValueError(
    f'released config {path} must {constraint}, got {found!r:.100}; correct '
    'the file, or get it again.'
  )


def _complete(path: pathlib.Path, given: Mapping[str, Any]) -> dict[str, Any]:
  """All fields: renamed, without strays, with defaults, of the right kinds."""
  given = dict(given)
  for old, new in _RENAMED.items():
    if old in given:
      value = given.pop(old)
      if given.setdefault(new, value) != value:
        raise _wrong(path, f'have one value for {new} and {old}', given[new])
  for field in _MUST_BE_FALSE:
    if given.get(field):
      constraint = f'have a false {field}, which is another model otherwise'
      raise _wrong(path, constraint, given[field])
  stray = [f for f in (*_MUST_BE_FALSE, *_STRAY, *_BOOKKEEPING) if f in given]
  unknown = [f for f in given if f not in _FIELDS and f not in stray]
  if unknown:
    constraint = 'have no fields but those of the published code'
    raise _wrong(path, constraint, ', '.join(unknown[:5]))
  for field in stray:
    _log.warning('%s: %s=%.50r is not used.', path, field, given[field])
  fields = {field: default for field, (_, default) in _FIELDS.items()}
  fields |= {field: given[field] for field in _FIELDS if field in given}
  for field, (kind, _) in _FIELDS.items():
    if not _is(kind, fields[field]):
      raise _wrong(path, f'have {kind} as {field}', fields[field])
  if fields['dropout']:
    _log.warning('%s: dropout=%s is not used.', path, fields['dropout'])
  return fields


def _is(kind, value):
  if value is None:
    return kind in (_MAYBE_POSITIVE, _FRACTION)
  if kind in (_POSITIVE, _MAYBE_POSITIVE):
    return type(value) is int and 0 < value < 2**31
  if kind == _FRACTION:
    return type(value) in (int, float) and 0 <= value <= 1
  return type(value) is (bool if kind == _FLAG else str)


def from_released(
  path: pathlib.Path, fields: Mapping[str, Any], tensors: Collection[str]
) -> GPTConfig:
  """Our configuration of a released model, as far as it can be known.

  Positions are 'added' or 'concat': what the table says is for the caller.

  Args:
    path: of the configuration.
    fields: what `read_config` gave.
    tensors: names of those in the checkpoint, by which buffers may be missing.

  Raises:
    ValueError: if the published code refuses such a model, or we do.
  """
  width, heads = fields['d_model'], fields['n_head']
  if width % heads:
    raise _wrong(path, f'have an n_head that divides d_model={width}', heads)
  if fields['sink'] and not fields['flash']:
    raise _wrong(path, 'have flash with sink, which needs it', False)
  table = fields['enable_bigram_table'] and (
    # A buffer that never was written is all zeros.
    fields['learnable_bigram_table'] or 'bigram_table' in tensors
  )
  sites = (
    fields['afrac_loctypes'].split(',') if fields['afrac_loctypes'] else ()
  )
  density = fields['afrac']
  try:
    return GPTConfig(
      vocab_size=fields['vocab_size'],
      n_layer=fields['n_layer'],
      d_model=width,
      d_head=fields['d_head'] or width // heads,
      n_head=heads,
      d_mlp=fields['d_mlp'] or 4 * width,
      context_length=fields['block_size'],
      norm='rms' if fields['rms_norm'] else 'layer',
      norm_bias=fields['ln_bias'] or fields['rms_norm'],
      activation=fields['activation_type'],
      residual_activation=fields['residual_activation_type'],
      use_bias=fields['bias'],
      tied_unembed=fields['tied_unembed'],
      activation_density=None if density is None else float(density),
      activation_sites=tuple(sites),
      sink=fields['sink'],
      bigram_table=table,
      position='concat' if fields['d_pos_emb'] else 'added',
      d_position=fields['d_pos_emb'],
      final_logits_bias='final_logits_bias' in tensors,
    )
  except ValueError as error:
    raise ValueError(f'released config {path}: {error}') from None


def to_released(config: GPTConfig, tokenizer_name: str) -> dict[str, Any]:
  """All fields of the published code for a model of ours.

  Raises:
    ValueError: if they cannot say all that the configuration says; names the
      first field that they cannot.
  """
  fields = {field: default for field, (_, default) in _FIELDS.items()}
  fields |= {
    'block_size': config.context_length,
    'vocab_size': config.vocab_size,
    'n_layer': config.n_layer,
    'n_head': config.n_heads,
    'd_head': config.d_head,
    'd_model': config.d_model,
    'bias': config.use_bias,
    'ln_bias': config.norm_bias,
    'rms_norm': config.norm == 'rms',
    'residual_activation_type': config.residual_activation,
    'activation_type': config.activation,
    'afrac': config.activation_density,
    'afrac_loctypes': ','.join(config.activation_sites),
    'tied_unembed': config.tied_unembed,
    'tokenizer_name': tokenizer_name,
    'grad_checkpointing': False,
    'd_mlp': config.mlp_width,
    'enable_bigram_table': config.bigram_table,
    'learnable_bigram_table': config.bigram_table,
    'd_pos_emb': config.d_position,
    'sinusoidal_cat_pos_emb': config.position == 'concat_sinusoidal',
    'sink': config.sink,
  }
  _check_expressed(config, fields)
  return fields


def _check_expressed(config, fields):
  if config.d_model % config.n_heads:
    raise ValueError(
      'model.n_head must divide model.d_model in the released format, got '
      f'{config.n_heads} and {config.d_model}; save it in another format.'
    )
  names = ('bigram_table',) * config.bigram_table
  names += ('final_logits_bias',) * config.final_logits_bias
  read = from_released(pathlib.Path(NAMES[0]), fields, names)
  given = dataclasses.replace(
    config,
    n_head=config.n_heads,
    d_mlp=config.mlp_width,
    norm_bias=config.norm_bias or config.norm == 'rms',
  )
  for field in dataclasses.fields(GPTConfig):
    want, got = getattr(given, field.name), getattr(read, field.name)
    if field.name == 'position' and want in ('none', 'concat_sinusoidal'):
      continue
    if want != got:
      raise ValueError(
        f'model.{field.name} must be {got!r} in the released format, which '
        f'has no room for others, got {want!r}; change it, or save the model '
        'in another format.'
      )


def write_config(directory: pathlib.Path, fields: Mapping[str, Any]) -> None:
  """Writes the file that `read_config` reads, or nothing."""
  with whole_file.writing(directory / NAMES[0]) as part:
    part.write_text(json.dumps(fields, indent=1, allow_nan=False))
