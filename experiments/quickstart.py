"""From Python source to circuits that you can look at, in one command.

    python -m sparse_interp --config=quickstart \
        --workdir=runs/quickstart

Trains the model of experiments/pretrain/laptop.py on idioms and the
interpreter's own library, prunes it to circuits for the first eight tasks it
learned, and writes report.html. Not measured in one piece as it is now: all 20
tasks are learned (seed 0), the first four circuits met every bound with 114 to
260 edges, and took three to eleven minutes each on 2 cores without AVX-512,
beside other work. Before, with half the steps of training and under mean
ablation alone, all took 10 minutes on 2 CPU cores with AVX-512
(docs/results.md).

With --config=quickstart:tiny the same path runs in a minute or
two on a model too small to learn much; that is for tests.
"""

from ml_collections import config_dict

from sparse_interp import configs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.configs import sections

SIZES = ('laptop', 'tiny')


def get_config(size: str = 'laptop') -> config_dict.ConfigDict:
  """Returns the configuration of a size, one of SIZES.

  Raises:
    ValueError: there is no such size.
  """
  if size not in SIZES:
    raise ValueError(
      f'size must be one of {", ".join(SIZES)}, got {size!r}; choose e.g. '
      'quickstart:tiny.'
    )
  config = configs.load(f'pretrain/{size}')
  config.run = 'quickstart'

  config.tasks = 'all'  # or names and files of pairs with commas between
  # Circuits are found for so many learned tasks, in the published order; None
  # for all, as in experiments/prune.py.
  config.circuits_at_most = sections.optional(int, 8)

  config.pairs = config_dict.ConfigDict()
  # All that a file of pairs has, if it has fewer.
  config.pairs.train = 768  # pairs of prompts to prune on
  config.pairs.test = 256  # pairs that only measure
  config.pairs.length = 80  # longest prompt, in tokens

  # Every field is explained where its default is, in PruneConfig.
  config.prune = sections.section(PruneConfig)
  if size == 'tiny':
    config.data.length = 80  # prompts have to fit
    config.train.tokens = 40 * 8 * 80
    config.tasks = 'else_elif,bracket_brace'
    config.pairs.train = 48
    config.pairs.test = 16
    # The tiny model solves little: a loss between its own on the first task,
    # 0.39, and that of an empty circuit, 0.63, and all parts run.
    config.prune.target_loss = 0.55
    config.prune.least_probability = 0.0
    config.prune.steps = 10
    # Most of the time goes into tracing, once for each of these.
    config.prune.ablation = 'mean,counterfactual'
    config.prune.attempts = 1
    config.prune.selection_pairs = 16
    config.prune.holdout_pairs = 16
    config.prune.batch_pairs = 8
  return config
