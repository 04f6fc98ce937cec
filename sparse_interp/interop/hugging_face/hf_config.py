"""The config.json of a Hugging Face directory, read with suspicion.

A field that nobody knows may change what a model computes: it is refused, and
so is a field that is known to and has a value that our model cannot follow.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from sparse_interp.files import json_text
from sparse_interp.models import GPTConfig

CONFIG = 'config.json'

# Of a json file; the longest index that we know of has 200 kB.
_MAX_BYTES = 16 * 2**20

# What the numbers of a model do not depend on: how it was or will be trained,
# how text is drawn from it, and how its files are kept.
_HARMLESS = frozenset(
  """_attn_implementation_autoset _name_or_path architectures attn_pdrop
  attention_dropout attention_probs_dropout_prob bad_words_ids
  begin_suppress_tokens bos_token_id chunk_size_feed_forward
  classifier_dropout cross_attention_hidden_size decoder_start_token_id
  diversity_penalty do_sample dtype early_stopping embd_pdrop
  encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
  finetuning_task forced_bos_token_id forced_eos_token_id
  gradient_checkpointing hidden_dropout hidden_dropout_prob id2label
  initializer_range is_decoder label2id length_penalty max_length min_length
  n_ctx no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
  output_attentions output_hidden_states output_past output_scores
  pad_token_id prefix problem_type remove_invalid_values
  reorder_and_upcast_attn repetition_penalty resid_pdrop return_dict
  return_dict_in_generate sep_token_id summary_activation
  summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
  suppress_tokens task_specific_params temperature tf_legacy_loss
  tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
  transformers_version typical_p use_bfloat16 use_cache""".split()
)
# What any model may have, and ours cannot do otherwise.
_FIXED = {
  'add_cross_attention': False,
  'is_encoder_decoder': False,
  'pruned_heads': {},
  'quantization_config': {},
}

# The nonlinearities of neurons, by their names there.
ACTIVATIONS = {
  'gelu': 'gelu',
  'gelu_python': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_fast': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'gelu_python_tanh': 'gelu_tanh',
  'relu': 'relu',
}


def refusal(path: Any, constraint: str, found: str, remedy: str) -> ValueError:
  """The one line that refuses a file."""
  line = f'{os.fspath(path)} must {constraint}, got {found}; {remedy}.'
  return ValueError(' '.join(line.split()))


def short(value: Any) -> str:
  """A value as a line may show it."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads one object whose keys are all different.

  Raises:
    ValueError: if the file is missing, too long, or something else.
  """
  try:
    # What is not finite is refused by the name of its field.
    return json_text.read_object(path, 'copy the file again', _MAX_BYTES, False)
  except OSError as error:
    found = error.strerror or str(error)
    raise refusal(path, 'be readable', found, 'copy the file again') from None


class Fields:
  """The fields of a config.json, each of the type that is asked for."""

  def __init__(self, path: str | os.PathLike, values: Mapping[str, Any]):
    self.path, self._values = path, values

  def get(self, name: str, kind: type, default: Any = None) -> Any:
    """A field; float takes integers, too. No default: it must be there."""
    value = self._values.get(name)
    value = default if value is None else value
    if kind is float and type(value) is int and abs(value) < 2**53:
      value = float(value)
    # A bool is an int to Python, but not here.
    if type(value) is not kind:
      raise refusal(
        self.path,
        f'have {name} as {kind.__name__}',
        short(value),
        'correct it, or copy the file again',
      )
    return value

  def choose(self, name: str, choices: Mapping[str, str], default: str) -> str:
    """What a field's value means here."""
    value = self.get(name, str, default)
    if value not in choices:
      raise refusal(
        self.path,
        f'have {name} among {", ".join(choices)}',
        short(value),
        'use another model',
      )
    return choices[value]


def read_config(
  directory: str | os.PathLike,
  model_type: str,
  known: Iterable[str],
  fixed: Mapping[str, Any],
) -> Fields:
  """Reads config.json and refuses whatever would change the computation.

  Args:
    directory: of the model.
    model_type: what the file has to say it is.
    known: fields that the caller understands.
    fixed: {field: the one value that the caller can do}; None or absent is
      that value, too.

  Raises:
    ValueError: if the file is damaged, of another kind, or has fields with
      other values, or ones that nobody knows.
  """
  path = pathlib.Path(directory) / CONFIG
  values = read_json(path)
  if values.get('model_type') != model_type:
    raise refusal(
      path,
      f'have model_type {model_type!r}',
      short(values.get('model_type')),
      'use the loader of that model',
    )
  for name, only in {**fixed, **_FIXED}.items():
    value = values.get(name)
    if value is not None and (value != only or type(value) is not type(only)):
      raise refusal(
        path,
        f'have {name}={only!r}',
        short(value),
        'that changes what the model computes; use another model',
      )
  accepted = {'model_type', *known, *fixed, *_FIXED, *_HARMLESS}
  for name in values:
    if name not in accepted:
      raise refusal(
        path,
        'have fields that are known not to change the computation',
        f'{short(name)}={short(values[name])}',
        'remove it if the model does not depend on it',
      )
  return Fields(path, values)


def head_width(path: Any, width: int, heads: int) -> int:
  """Channels of one head.

  Raises:
    ValueError: if the heads do not divide the width.
  """
  if heads < 1 or width % heads:
    raise refusal(
      path,
      'have a number of heads that divides the width',
      f'{heads} heads of a width of {width}',
      'correct it, or copy the file again',
    )
  return width // heads


def activation_name(config: GPTConfig) -> str:
  """The name of a model's nonlinearity there."""
  return {'gelu_tanh': 'gelu_new'}.get(config.activation, config.activation)


def check_same(config: GPTConfig, read: GPTConfig, kind: str) -> None:
  """Refuses to write a model that would be another one when it is read.

  Args:
    config: of the model.
    read: what the fields that are to be written mean.
    kind: of the files.
  """
  for field in dataclasses.fields(GPTConfig):
    ours, theirs = _meaning(config, field.name), _meaning(read, field.name)
    if ours != theirs:
      raise ValueError(
        f'model.{field.name} must be {theirs!r} to be written as {kind}, got '
        f'{ours!r}; keep this model in our own files.'
      )


def _meaning(config: GPTConfig, name: str) -> Any:
  """A field, or what decides in its place."""
  if name == 'activation_sites' and config.activation_density is None:
    return None
  if name in ('rotary_fraction', 'rotary_base') and config.position != 'rotary':
    return None
  stand_in = {'norm_eps': 'norm_epsilon', 'n_head': 'n_heads'}
  stand_in |= {'d_mlp': 'mlp_width', 'd_output': 'output_width'}
  return getattr(config, stand_in.get(name, name))
