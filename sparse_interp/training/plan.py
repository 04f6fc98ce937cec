"""What a pretraining configuration asks for, checked before any work."""

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import config_dict

from sparse_interp.configs import sections
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.products import DENSE, Products, skipping_pays
from sparse_interp.sparsity import rules, schedules
from sparse_interp.training import estimate, ranges
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import state as state_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The frozen form of a configuration.

  Attributes:
    model: the architecture.
    schedule: density over steps.
    learning_rate: rate per update, float64.
    targets: nonzeros of every sparse tensor at every update.
    optimizer: constants of the update.
    updates: number of updates; one more than train.tokens pays for, since
      the published loop counts its steps from 0 to T inclusive and the last
      has rate 0.
    products: what products with the matrices of the layers skip.
    regrow_every: see `state.make_train_step`.
  """

  model: GPTConfig
  schedule: schedules.DensitySchedule
  learning_rate: Float[np.ndarray, ' updates']
  targets: dict[str, rules.Target]
  optimizer: optimizer_lib.OptimizerConfig
  updates: int
  products: Products = DENSE
  regrow_every: int | None = None


def make_plan(config: config_dict.ConfigDict, free: int | None = None) -> Plan:
  """Checks every field and derives schedules, shapes and counts.

  Args:
    config: see experiments/pretrain/tiny.py for every field.
    free: bytes of memory that training may take, as from
      `free_memory.of_devices`; None for any number.

  Raises:
    ValueError: a field is out of its range, two contradict each other, or the
      run will take more memory than is free.
  """
  _check_values(config)
  _check_corpora(config.data)
  model = model_config(config)
  sparsity = config.sparsity
  steps = config.train.tokens // (config.data.batch_size * config.data.length)
  if steps < 1:
    raise ValueError(
      'train.tokens must pay for at least one batch of '
      f'{config.data.batch_size} x {config.data.length} tokens, got '
      f'{config.train.tokens}; choose more.'
    )
  if free is not None:
    # Before all that takes the longer the larger it is.
    parts = estimate.of_training(
      model,
      config.data.batch_size,
      steps + 1,
      config.train.eval_batches,
      estimate.share(config.train.fsdp),
    )
    estimate.check(parts, free)
  schedule = schedules.DensitySchedule(
    total_steps=steps,
    density=sparsity.density,
    expansion_factor=sparsity.expansion_factor,
    anneal=sparsity.anneal,
    exponent=sparsity.exponent,
    start_fraction=sparsity.start_fraction,
    stop_fraction=sparsity.stop_fraction,
    embedding_schedule=sparsity.embedding_schedule,
  )
  learning_rate = schedules.learning_rate(
    schedule,
    config.optimizer.learning_rate,
    config.optimizer.warmup_fraction,
  )
  constants = optimizer_lib.OptimizerConfig(
    **{
      field.name: config.optimizer[field.name]
      for field in dataclasses.fields(optimizer_lib.OptimizerConfig)
    }
  )
  shapes = jax.eval_shape(
    lambda key: state_lib.init_params(GPT(model), key), jax.random.key(0)
  )
  # Configurations from before there were blocks lack the field.
  block = sparsity.get('block')
  regrow_every = sparsity.get('regrow_every')
  products = _products(
    sparsity.get('products', 'auto'), block, regrow_every, schedule.density
  )
  targets = rules.make_targets(
    shapes,
    schedule,
    sparsity.minimum_alive,
    sparsity.biases,
    block=block,
  )
  return Plan(
    model,
    schedule,
    learning_rate,
    targets,
    constants,
    steps + 1,
    products,
    regrow_every,
  )


PRODUCTS = ('auto', 'dense', 'row_sparse')


def _products(
  asked: str, block: int | None, regrow_every: int | None, density: float
) -> Products:
  """What the fields of `sparsity` mean for the products of this machine.

  Raises:
    ValueError: there are no such products, or not with the other fields.
  """
  if regrow_every is not None and regrow_every < 1:
    raise ValueError(
      f'sparsity.regrow_every must be None or at least 1, got {regrow_every}; '
      'choose e.g. 10.'
    )
  if regrow_every is not None and asked == 'dense':
    raise ValueError(
      "sparsity.products must not be 'dense' where sparsity.regrow_every is "
      "set, got 'dense'; choose 'auto'."
    )
  if asked not in PRODUCTS:
    raise ValueError(
      f'sparsity.products must be one of {", ".join(PRODUCTS)}, got {asked!r}; '
      "choose e.g. 'auto'."
    )
  if block is not None and asked != 'auto':
    raise ValueError(
      f"sparsity.products must be 'auto' where sparsity.block is set, got "
      f'{asked!r}; blocks have products of their own.'
    )
  skip = asked == 'row_sparse' or regrow_every is not None
  skip = skip or (asked == 'auto' and skipping_pays(density))
  return Products(block, skip_zeros=skip and block is None)


# Entries of a bigram table, beyond which it is off unless it is asked for. The
# published models have 2048 ** 2; this many take 1 GB in training.
_LARGEST_TABLE = 8192**2


def model_config(config: config_dict.ConfigDict) -> GPTConfig:
  """The architecture; its vocabulary and context are those of the data.

  Where `model.bigram_table` is None, there is one up to a vocabulary of 8192.

  Raises:
    ValueError: `config.model` has a field that GPTConfig lacks or refuses.
  """
  values = config.model.to_dict()
  if values.get('d_output') is not None:
    raise ValueError(
      'model.d_output must not be set, since next tokens are predicted, got '
      f'{values["d_output"]!r}; remove it.'
    )
  if values.get('bigram_table', True) is None:
    values['bigram_table'] = config.data.vocab_size**2 <= _LARGEST_TABLE
  return sections.read(
    GPTConfig,
    values,
    'model',
    vocab_size=config.data.vocab_size,
    context_length=config.data.length,
  )


# Fields that count something, and the least that makes sense.
_LEAST = {
  'data.batch_size': 1,
  'data.length': 2,
  'data.vocab_size': 257,
  'train.tokens': 1,
  'train.log_every': 1,
  'train.eval_every': 1,
  'train.eval_batches': 1,
  'train.checkpoint_every': 1,
  'train.keep_checkpoints': 1,
  'train.fsdp': 1,
  'sparsity.minimum_alive': 0,
}
_TEXTS = (
  'sparsity.anneal',
  'sparsity.embedding_schedule',
  'sparsity.biases',
  'optimizer.gradient_rms',
)
# Their ranges are checked where they are used.
_NUMBERS = (
  'data.validation_fraction',
  'sparsity.density',
  'sparsity.expansion_factor',
  'sparsity.exponent',
  'sparsity.start_fraction',
  'sparsity.stop_fraction',
  'optimizer.learning_rate',
  'optimizer.warmup_fraction',
  'optimizer.beta1',
  'optimizer.beta2',
  'optimizer.eps',
  'optimizer.weight_decay',
)


def _check_values(config: config_dict.ConfigDict) -> None:
  ranges.check_finite(config)
  ranges.check_seed(config)
  # Configurations from before there were blocks lack the last two.
  optional = {
    f'sparsity.{name}': 1
    for name in ('block', 'regrow_every')
    if name in config.sparsity
  }
  ranges.check_whole(config, _LEAST, {'data.max_bytes': 1, **optional})
  for name in _NUMBERS:
    ranges.check_number(config, name)
  ranges.check_text(config, *_TEXTS)
  if 'products' in config.sparsity:
    ranges.check_text(config, 'sparsity.products')


def _check_corpora(data: config_dict.ConfigDict) -> None:
  pairs = data.corpora
  if not pairs or not all(
    isinstance(pair, tuple | list)
    and len(pair) == 2
    and isinstance(pair[0], str)
    and isinstance(pair[1], int | float)
    and 0 < pair[1] < math.inf
    for pair in pairs
  ):
    raise ValueError(
      'data.corpora must be pairs of a corpus and a positive weight, got '
      f"{pairs!r}; choose e.g. (('stdlib', 1.0),)."
    )
  names = [name for name, _ in pairs]
  if len(set(names)) < len(names):
    raise ValueError(
      f'data.corpora must name each corpus once, got {names}; add the '
      'weights of the repeated one.'
    )
  if not 0 <= data.validation_fraction < 1:
    raise ValueError(
      'data.validation_fraction must be in [0, 1), got '
      f'{data.validation_fraction}; choose e.g. 0.05.'
    )
