"""Kernels beside their competitors, each checked before it is timed.

    python -m sparse_interp --config=benchmarks/kernels \
        --workdir=runs/kernels

One command per machine; `kernels.py:tiny` tries it in a minute. Sizes for a CPU
are smaller than those for an accelerator. Competitors that are installed take
part: XLA dense, BCOO and BCSR of jax, CSR of scipy, and of torch dense, CSR,
BSR and topk. Stopped at any moment, or once the budget is spent, the same
command goes on with the next case; each takes at most `seconds` per competitor
besides its compilation. `--config.only=projection` runs some cases.

To publish, copy kernels.json to results/kernels_<machine>.json beside this
file, and roofline.svg likewise; then `python -m
sparse_interp.benchmarks.tables` makes the tables of docs/kernels.md anew.

On 2 CPU cores (5 minutes with `--config.seconds=3`; every number is in
results/kernels_2_cpu_cores.json and in docs/kernels.md): AbsTopK 172 and 163
times faster than the best form of `lax.top_k`; a projection of 1e6 and 1e7
entries 85 and 124 times faster than a sort; products at density 1/128 10.3 and
15.6 times, at 1/1024 14.6 and 16.9 times faster than dense (512 -> 2048 and
1024 -> 4096; BCSR of jax is level there); block-sparse products at 1/32,
forward and backward, 5.8 times.
The slowest were repeated less than 20 times (the sort of 1e7 entries once); the
results say how often. On an H200 (19 of 26 cases, `--config.seconds=0.3`):
results/kernels_h200.json.
"""

from ml_collections import config_dict

SIZES = ('auto', 'tiny', 'cpu', 'accelerator')


def get_config(sizes: str = 'auto') -> config_dict.ConfigDict:
  """Returns the configuration.

  Args:
    sizes: one of SIZES; 'auto' follows the platform.

  Raises:
    ValueError: there are no such sizes.
  """
  if sizes not in SIZES:
    raise ValueError(
      f'sizes must be one of {", ".join(SIZES)}, got {sizes!r}; choose e.g. '
      'kernels.py:cpu.'
    )
  if sizes == 'auto':
    import jax  # here, since it takes seconds and others need it not

    sizes = 'cpu' if jax.default_backend() == 'cpu' else 'accelerator'
  config = config_dict.ConfigDict()
  config.run = 'kernels'
  config.seed = 0  # of the inputs
  config.repetitions = 20  # samples of each competitor
  config.seconds = 20.0  # for these, per competitor
  config.budget = 1e9  # seconds in all; no case is begun after
  config.only = ''  # part of the names of the cases wanted
  for name in ('ceiling', 'abs_topk', 'projection', 'row_sparse'):
    config[name] = config_dict.ConfigDict()
  config.block_sparse = config_dict.ConfigDict()
  config.abs_topk.density = 1 / 4  # entries kept per row
  config.projection.density = 1 / 100  # entries kept of a tensor
  {'tiny': _tiny, 'cpu': _cpu, 'accelerator': _accelerator}[sizes](config)
  return config


def _tiny(config):
  config.dtypes = ('float32',)  # of products and copies
  config.repetitions = 3
  config.seconds = 0.2
  config.ceiling.width = 64  # of square matrices, multiplied
  config.ceiling.entries = 1000  # that are copied
  config.abs_topk.sizes = ((16, 128),)  # (rows, width)
  config.projection.sizes = (1000,)  # entries of a tensor
  config.row_sparse.sizes = ((16, 32, 64),)  # (tokens, inputs, outputs)
  config.row_sparse.densities = (1 / 32,)  # of the weights
  config.block_sparse.sizes = ((16, 64, 64),)  # (tokens, inputs, outputs)
  config.block_sparse.blocks = (16,)  # sides of the blocks
  config.block_sparse.densities = (1 / 4,)  # of the blocks


def _cpu(config):
  config.dtypes = ('float32',)
  config.ceiling.update({'width': 2048, 'entries': 50_000_000})
  config.abs_topk.sizes = ((8192, 512), (8192, 1024))
  config.projection.sizes = (100_000, 1_000_000, 10_000_000)
  config.row_sparse.sizes = ((2048, 512, 2048), (2048, 1024, 4096))
  config.row_sparse.densities = (1 / 8, 1 / 32, 1 / 64, 1 / 128, 1 / 1024)
  config.block_sparse.sizes = ((2048, 4096, 4096),)
  config.block_sparse.blocks = (64,)
  config.block_sparse.densities = (1 / 4, 1 / 8, 1 / 32)


def _accelerator(config):
  config.dtypes = ('bfloat16',)
  config.seconds = 2.0
  config.budget = 300.0
  config.ceiling.update({'width': 8192, 'entries': 250_000_000})
  config.abs_topk.sizes = ((8192, 1024), (8192, 4096))
  config.projection.sizes = (1_000_000, 10_000_000)
  config.row_sparse.sizes = ((8192, 2048, 8192),)
  config.row_sparse.densities = (1 / 32, 1 / 64, 1 / 128, 1 / 1024)
  config.block_sparse.sizes = ((8192, 8192, 8192),)
  config.block_sparse.blocks = (64, 128)
  config.block_sparse.densities = (1.0, 1 / 2, 1 / 4, 1 / 8)
