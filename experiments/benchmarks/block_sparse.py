"""Block-sparse products by each implementation, forward and backward.

    python -m sparse_interp.main --workdir=runs/block_sparse_time \
        --config=experiments/benchmarks/block_sparse.py

Width 4096, blocks of 64, 2048 tokens. For a TPU take blocks of 128 and
--config.implementations="('batched', 'tpu')", for Hopper `gpu` and
--config.dtype=bfloat16. Not measured yet.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = config_dict.ConfigDict()
  config.run = 'block_sparse_time'
  config.seed = 0  # of the data
  config.tokens = 2048
  config.inputs = 4096
  config.outputs = 4096
  config.block = 64  # rows and columns of a block
  config.dtype = 'float32'
  config.densities = (1 / 2, 1 / 4, 1 / 8, 1 / 32)  # share of kept blocks
  config.implementations = ('looped', 'batched')  # besides the dense product
  config.repetitions = 20
  return config
