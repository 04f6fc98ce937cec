"""Time of a sparse training step against the same step dense.

    python -m sparse_interp.main --config=experiments/benchmarks/step_time.py \
        --workdir=runs/step_time

The size is that of experiments/pretrain/laptop.py; the dense twin has density
1, no projection and no AbsTopK. Measured on 2 CPU cores (jax 0.10.2): sparse
232 ms, dense 217 ms, ratio 1.07 (medians of 30, in turns); the numbers are in
experiments/benchmarks/results/step_time_2_cpu_cores.json.
"""

import importlib.util
import pathlib

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  path = pathlib.Path(__file__).parent.parent / 'pretrain' / 'laptop.py'
  spec = importlib.util.spec_from_file_location('laptop', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.run = 'step_time'
  config.repetitions = 30
  return config
