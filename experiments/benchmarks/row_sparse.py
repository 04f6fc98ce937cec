"""Products, evaluation and pruning with the nonzero weights alone.

    python -m sparse_interp.main --config=experiments/benchmarks/row_sparse.py \
        --workdir=runs/row_sparse

Not measured yet on a machine that did nothing else. On a CPU, `products` show
below which density `models.frozen` should change over (`row_sparse` against
`dense`), and what transposing costs (`feature_major` has none).
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = config_dict.ConfigDict()
  config.run = 'row_sparse'
  config.seed = 0
  config.repetitions = 20
  config.tokens = 2048
  config.shapes = ((512, 2048), (1024, 4096), (4096, 1024))
  config.densities = (1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 1024)
  config.of_models = (1 / 64, 1 / 256)  # densities of the hidden matrices
  config.unembedding = 4.0  # times as dense, as published models have it

  config.model = config_dict.ConfigDict()  # fields of models.GPTConfig
  config.model.vocab_size = 2048
  config.model.n_layer = 2
  config.model.d_model = 1024
  config.model.d_head = 16
  config.model.context_length = 256
  config.model.activation_density = 0.25
  config.sequences = 8  # of an evaluation
  config.batch_pairs = 16  # of a step of pruning
  config.prompt = 64  # tokens of the prompts of pruning
  return config
