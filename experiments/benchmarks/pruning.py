"""Time of evaluating and pruning a frozen model, dense against sparse.

    python -m sparse_interp --config=benchmarks/pruning \
        --workdir=runs/prune_time

Width 1024, random weights at the densities below. Products with all weights and
with the nonzero ones alone must agree; then they take turns. `pruning.py:tiny`
tries it in a minute.

On 2 CPU cores, 15 minutes with `--config.steps=2`, 20 repetitions
(results/pruning_2_cpu_cores.json), times as fast as with dense products:
evaluation 2.71, 4.56, 5.29 and 3.92 at densities 1/16, 1/64, 1/256 and 1/1024,
pruning 2.56, 3.85, 4.27 and 3.80. At 1/64 that is 132 ms for 2048 tokens.
"""

from ml_collections import config_dict

SIZES = ('wide', 'tiny')


def get_config(size: str = 'wide') -> config_dict.ConfigDict:
  """Returns the configuration of a size, one of SIZES.

  Raises:
    ValueError: there is no such size.
  """
  if size not in SIZES:
    raise ValueError(
      f'size must be one of {", ".join(SIZES)}, got {size!r}; choose e.g. '
      'pruning.py:wide.'
    )
  tiny = size == 'tiny'
  config = config_dict.ConfigDict()
  config.run = 'prune_time'
  config.seed = 0
  # Of each way.
  config.repetitions = 2 if tiny else 20
  config.budget = 1e9  # seconds in all; no density is begun after
  # Shares of nonzero weights that are timed.
  config.densities = (1 / 16,) if tiny else (1 / 16, 1 / 64, 1 / 256, 1 / 1024)
  config.batch_size = 2 if tiny else 16  # sequences that are evaluated
  # Pairs of prompts to prune on.
  config.pairs = 8 if tiny else 64
  config.pair_length = 8 if tiny else 64  # tokens of a prompt
  # Pairs of prompts per step of pruning.
  config.batch_pairs = 4 if tiny else 16
  config.steps = 10 if tiny else 20  # of pruning, in each repetition
  config.model = config_dict.ConfigDict()  # fields of models.GPTConfig
  config.model.vocab_size = 300 if tiny else 2048
  config.model.n_layer = 1 if tiny else 4
  config.model.d_model = 32 if tiny else 1024
  config.model.d_head = 16
  config.model.context_length = 16 if tiny else 128
  return config
