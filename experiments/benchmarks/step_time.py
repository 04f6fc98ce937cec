"""Time of a sparse training step, dense, and by the same recipe in torch.

    python -m sparse_interp --config=benchmarks/step_time \
        --workdir=runs/step_time

The size is that of experiments/pretrain/laptop.py, or of a published one:
`step_time.py:1`, `:2` and `:4` are expansion factors, with batches of 8 (give
--config.data.batch_size=128 to an accelerator). All steps are made at the final
density. The dense twin has density 1, no projection and no AbsTopK;
torch_recipe.py beside this file takes part where torch is installed, eager and
compiled. Utilisation is stated against --config.peak_flops if it is given.

On 2 CPU cores (jax 0.10.2, torch 2.13; medians, in turns; under results/):
laptop, 30 rounds: sparse 133 ms, dense 132 (sparse over dense 1.01), torch 363
(2.74 times ours), compiled 354 (2.67). Expansion factor 1, batch 8, 20 rounds,
density 1/4, where nothing is skipped: sparse 464 ms, dense 406 (1.15), torch
1157 (2.49), compiled 1125 (2.42). Expansion factor 2, batch 8, 5 rounds: sparse
1540 ms, dense 1383 (1.11), torch 3182 (2.07), compiled 3090 (2.01); factor 4,
one round: sparse 4648 ms, dense 4486 (1.04), torch 10245 (2.20), compiled 10361
(2.23).
"""

import pathlib

from ml_collections import config_dict

from sparse_interp import configs

_HERE = pathlib.Path(__file__).parent
SIZES = ('tiny', 'laptop', '1', '2', '4')


def get_config(size: str = 'laptop') -> config_dict.ConfigDict:
  """Returns the configuration of a size, one of SIZES.

  Raises:
    ValueError: there is no such size.
  """
  if size not in SIZES:
    raise ValueError(
      f'size must be one of {", ".join(SIZES)}, got {size!r}; choose e.g. '
      'step_time.py:laptop.'
    )
  if size in ('tiny', 'laptop'):
    config = configs.load(f'pretrain/{size}')
  else:
    config = configs.load('pretrain/expansion', size)
    config.data.batch_size = 8
    config.model.dtype = 'float32'  # 'bfloat16' for an accelerator
  # The final density from the first step on.
  config.sparsity.start_fraction = 0.0
  config.sparsity.stop_fraction = 0.0
  config.run = 'step_time'
  config.repetitions = 30  # of each step
  config.budget = 1e9  # seconds in all
  # Which are timed.
  config.steps = ('sparse', 'dense', 'torch', 'torch_compiled')
  # File with the recipe in torch; '' for none.
  config.torch_recipe = str(_HERE / 'torch_recipe.py')
  config.peak_flops = 0.0  # of the machine, in config.model.dtype; 0: unknown
  return config
