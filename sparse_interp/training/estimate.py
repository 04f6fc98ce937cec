"""What a run will take in memory, estimated before any work.

Sums over shapes, no more: they take no time however large a number is asked
for, and are right to a factor of two. What decides a part is a field of the
configuration, and the message names the field of the largest part.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from sparse_interp.models import GPTConfig

_FLOAT = 4

# Copies of the parameters while a step is made: themselves, two moments, the
# gradient and the update.
_COPIES = 5

# Numbers kept for the gradient, for each channel that a token has in a layer
# and for each of its logits.
_PER_CHANNEL = 2.5
_PER_LOGIT = 3

# Bytes per update for tables of rates, densities and counts.
_PER_UPDATE = 100

# Bytes that a compiler takes for a layer, whatever its width.
_PER_LAYER = 25e6

# Bytes per pair of prompts beside its tokens: as text, to see repetitions, and
# for each of 1000 resamples of a bootstrap, drawn and looked up.
_PER_PAIR = 1_000
_PER_TEST_PAIR = 20_000


class Part(NamedTuple):
  """Something large.

  Attributes:
    what: it is, for people.
    size: in bytes.
    field: of the configuration that decides.
    value: of the field.
    remedy: what to do about it.
  """

  what: str
  size: float | int
  field: str
  value: object
  remedy: str


class Share(NamedTuple):
  """What one memory holds of a run on several devices.

  Attributes:
    states: copies of parameters and moments; below 1 where they are sharded.
    rows: of each batch.
  """

  states: float | int
  rows: float | int


def share(fsdp: int) -> Share:
  """What one memory holds: that of the host on CPUs, else that of a device.

  Args:
    fsdp: devices that share one copy of the state.
  """
  if jax.default_backend() == 'cpu':
    return Share(jax.local_device_count() / fsdp, 1 / jax.process_count())
  return Share(1 / fsdp, 1 / jax.device_count())


def parameter_counts(model: GPTConfig) -> dict[str, int]:
  """Numbers in the 'bigrams', 'embeddings' and 'layers' of a model."""
  width, read, attn = model.d_model, model.block_input_width, model.d_attn
  layer = read * (3 * attn + model.mlp_width) + width * (attn + model.mlp_width)
  if model.use_bias:
    layer += 3 * attn + model.mlp_width + 2 * width
  tables = 1 if model.tied_unembed else 2
  positions = {'added': width, 'concat': model.d_position or 0}
  return {
    'bigrams': model.vocab_size**2 * model.bigram_table,
    'embeddings': tables * width * model.vocab_size
    + positions.get(model.position, 0) * model.context_length,
    'layers': model.n_layer * layer,
  }


def of_training(
  model: GPTConfig,
  batch_size: int,
  updates: int,
  eval_batches: int,
  share: Share,
) -> list[Part]:
  """The large parts of a training run.

  Args:
    model: what is trained, on windows as long as its context.
    batch_size: windows of a batch, over all devices.
    updates: number of them.
    eval_batches: batches of validation text.
    share: what the memory in question holds of state and batches.
  """
  counts = parameter_counts(model)
  copies = _COPIES * _FLOAT * share.states
  tokens = batch_size * share.rows * model.context_length
  vocab, width, layers = model.vocab_size, model.d_model, model.n_layer
  return [
    Part(
      f'the table of bigrams, {vocab} x {vocab} numbers',
      counts['bigrams'] * copies,
      *('data.vocab_size', vocab),
      'lower it or set model.bigram_table=False',
    ),
    Part(
      f'embeddings of {vocab} tokens',
      counts['embeddings'] * copies,
      *('data.vocab_size', vocab),
      'lower it or model.d_model',
    ),
    Part(
      f'{layers} layers',
      counts['layers'] * copies,
      *('model.d_model', width),
      'lower it, model.d_mlp or model.n_layer',
    ),
    Part(
      f'compiling {layers} layers',
      layers * _PER_LAYER,
      *('model.n_layer', layers),
      'lower it',
    ),
    Part(
      f'activations of {batch_size} x {model.context_length} tokens',
      tokens * layers * _channels(model) * _PER_CHANNEL * _FLOAT,
      *('data.batch_size', batch_size),
      'lower it, data.length or model.d_model',
    ),
    Part(
      f'logits of {batch_size} x {model.context_length} tokens',
      tokens * vocab * _PER_LOGIT * _FLOAT,
      *('data.batch_size', batch_size),
      'lower it, data.length or data.vocab_size',
    ),
    Part(
      f'schedules of {updates} steps',
      updates * _PER_UPDATE,
      *('train.tokens', updates * batch_size * model.context_length),
      'lower it or raise data.batch_size',
    ),
    Part(
      'validation text',
      eval_batches * tokens * _FLOAT,
      *('train.eval_batches', eval_batches),
      'lower it',
    ),
  ]


def of_pruning(
  model: GPTConfig,
  tasks: int,
  train_pairs: int,
  test_pairs: int,
  length: int,
  steps: int,
  batch_pairs: int,
) -> list[Part]:
  """The large parts of a search for circuits.

  Args:
    model: what is pruned.
    tasks: whose pairs are all held.
    train_pairs: of each task.
    test_pairs: of each task.
    length: tokens of a prompt.
    steps: of the optimisation.
    batch_pairs: pairs in each step.
  """
  # Tokens, on the host and on the device.
  pair = 2 * 2 * length * _FLOAT + _PER_PAIR
  prompts = 2 * batch_pairs * length
  channels = model.n_layer * _channels(model) * _PER_CHANNEL
  return [
    Part(
      'the model',
      2 * sum(parameter_counts(model).values()) * _FLOAT,
      *('model_workdir', 'a large model'),
      'choose another',
    ),
    Part(
      f'training pairs of {tasks} tasks',
      tasks * train_pairs * pair,
      *('pairs.train', train_pairs),
      'lower it or ask for fewer tasks',
    ),
    Part(
      f'test pairs of {tasks} tasks and their intervals',
      tasks * test_pairs * pair + test_pairs * _PER_TEST_PAIR,
      *('pairs.test', test_pairs),
      'lower it or ask for fewer tasks',
    ),
    Part(
      f'activations of {2 * batch_pairs} x {length} tokens',
      prompts * channels * _FLOAT,
      *('prune.batch_pairs', batch_pairs),
      'lower it or pairs.length',
    ),
    Part(
      f'batches of {steps} steps',
      steps * batch_pairs * 2 * 8,
      *('prune.steps', steps),
      'lower it',
    ),
  ]


def check(parts: Sequence[Part], free: float | int) -> None:
  """Refuses what does not fit.

  Args:
    parts: from `of_training` or `of_pruning`.
    free: bytes that the memory has left.

  Raises:
    ValueError: the parts are more than what is free; the field is that of the
      largest.
  """
  total = sum(part.size for part in parts)
  if total <= free:
    return
  largest = max(parts, key=lambda part: part.size)
  raise ValueError(
    f'{largest.field} must leave the run within the {_in_words(free)} of '
    f'memory that are free, got {largest.value}: it would take about '
    f'{_in_words(total)}, {_in_words(largest.size)} of them for '
    f'{largest.what}; {largest.remedy}.'
  )


def _channels(model: GPTConfig) -> int:
  """Numbers that a token has in a layer, wherever it can be edited."""
  return (
    2 * model.block_input_width
    + 4 * model.d_attn
    + 2 * model.mlp_width
    + 4 * model.d_model
  )


def _in_words(size: float | int) -> str:
  for unit, name in ((1e12, 'TB'), (1e9, 'GB')):
    if size >= unit:
      return f'{size / unit:,.1f} {name}'
  return f'{size / 1e6:,.0f} MB'
