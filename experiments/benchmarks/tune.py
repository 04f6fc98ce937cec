"""The fastest variant of every kernel on the GPU at hand, beside plain jax.

    python -m sparse_interp --config=benchmarks/tune --workdir=runs/tune

Each variant is compiled once, compared with plain jax and timed 20 times; one
that takes three times as long as the best is given up after three. About two
minutes on a Hopper GPU. Stopped at any moment, or once the budget is spent, the
same command goes on with the next case. On a CPU `tune.py:tiny` tries all of
it, the kernels emulated: what it times there means nothing.

To make the result what 'auto' goes by on this kind of card, copy tuned.json to
sparse_interp/ops/tuned/<card>.json; its first field is the name of the card.
"""

from ml_collections import config_dict

SIZES = ('gpu', 'tiny')


def get_config(sizes: str = 'gpu') -> config_dict.ConfigDict:
  """Returns the configuration.

  Args:
    sizes: one of SIZES.

  Raises:
    ValueError: there are no such sizes.
  """
  if sizes not in SIZES:
    raise ValueError(
      f'sizes must be one of {", ".join(SIZES)}, got {sizes!r}; choose e.g. '
      'tune.py:tiny.'
    )
  tiny = sizes == 'tiny'
  config = config_dict.ConfigDict()
  config.run = 'tune'
  config.copies = 2 if tiny else 8  # of a case in one call
  config.samples = 2 if tiny else 20  # of each variant
  config.budget = 1e9 if tiny else 220.0  # seconds; no case is begun after
  config.only = ''  # part of the names of the cases wanted
  for name in ('row_sparse', 'projection', 'abs_topk', 'block_sparse'):
    config[name] = config_dict.ConfigDict()
  # (dtype, tokens, inputs, outputs)
  config.row_sparse.sizes = (
    ('bfloat16', 8192, 2048, 8192),
    ('bfloat16', 8192, 8192, 2048),
    ('float32', 8192, 2048, 8192),
  )
  config.row_sparse.densities = (1 / 128, 1 / 1024, 1 / 256, 1 / 64)
  config.projection.sizes = (1_000_000, 10_000_000, 100_000)  # entries
  config.projection.density = 1 / 100  # of entries, that are kept
  # (dtype, rows, width)
  config.abs_topk.sizes = tuple(
    (dtype, 8192, width)
    for dtype in ('float32', 'bfloat16')
    for width in (1024, 4096, 512, 2048)
  )
  config.abs_topk.density = 1 / 4  # entries kept per row
  # (block, tokens, inputs, outputs)
  config.block_sparse.sizes = ((128, 8192, 8192, 8192), (64, 8192, 8192, 8192))
  config.block_sparse.density = 1 / 4  # of the blocks
  if tiny:
    config.row_sparse.sizes = (('float32', 8, 16, 32),)
    config.row_sparse.densities = (1 / 8,)
    config.projection.sizes = (1000,)
    config.abs_topk.sizes = (('float32', 4, 128),)
    config.block_sparse.sizes = ((64, 128, 128, 128),)
  return config
