"""What the quickstart finds, over seeds and by two recipes: does it repeat?

    python -m sparse_interp --config=seeds --workdir=runs/seeds

For every seed trains the model of the quickstart, prunes it for all tasks by
our recipe and by the published one, and says of each circuit which bounds it
met. summary.json has the tasks learned in each seed, the circuits found, how
many hold under every ablation, and median sizes side by side. An interrupted
run goes on where it was; every seed and recipe is a workdir with a page of its
own. With --config=seeds:tiny it runs in minutes on models too small to learn
much.
"""

from ml_collections import config_dict

from sparse_interp import configs


def get_config(size: str = 'laptop') -> config_dict.ConfigDict:
  """Returns the configuration of a size, as in experiments/quickstart.py."""
  config = configs.load('quickstart', size)
  config.run = 'seeds'
  # Each trains a model, and is the seed of its pruning.
  config.seeds = (0, 1, 2, 3, 4) if size == 'laptop' else (0, 1)
  config.recipes = ('closed', 'published')  # of PruneConfig, side by side
  config.circuits_at_most = None
  return config
