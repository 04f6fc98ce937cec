"""How strong is pruning? Edge masks, node masks and attribution, side by side.

    python -m sparse_interp --config=strength \
        --config.model_workdir=runs/quickstart --workdir=runs/strength

For every task that the model learned: node masks and edge masks tuned with the
same number of trials, gradient attribution, circuits at the target and at the
published targets. Also times eight pruning jobs as one call, and compares the
logits of gated, edited and extracted circuits.

Measured on 2 CPU cores, about 5 minutes of one core a task, seed 0, test pairs,
mean ablation, target 0.15, all 16 learned tasks: edge masks need 0.43 of the
edges of bisected node masks (the published method), 0.87 of eliminated ones
and 0.05 of gradient attribution (geometric means). Three trials against the
defaults: 0.50 times the edges for node masks, 0.73 for edge masks. Logits of
gated, edited and extracted circuits differ by at most 7.6e-6. Eight jobs as
one call, measured apart, over the same in sequence: for nodes of a compiled
program in 100 steps 0.34 with batches of 4, 0.50 to 0.54 with 16, 0.65 with 32;
for this model in jobs of 20 steps with batches of 4 0.31 (nodes) and 0.34
(edges), since one call attributes once for all jobs; without attribution about
1. The cases of whole jobs, `model_*_whole`, have not been run.
Needs the extra `search`. An interrupted run goes on where it was.
"""

from ml_collections import config_dict

from sparse_interp import configs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.configs import sections


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = configs.load('prune')
  config.run = 'strength'
  config.trials = 3  # configurations that each kind of mask is tuned with
  config.parallel = 1  # of them in one call; more pay off on a GPU
  config.targets = (0.5, 0.15, 0.05, 0.015)  # of the curves, in nats
  # What is asked of both kinds alike; in the rest they differ, or it is what is
  # compared. The model is run under mean ablation.
  config.prune = sections.section(
    PruneConfig,
    leave_out=('gates', 'k_coef', 'eliminate', 'ablation', 'products'),
    steps=160,
    standard_errors=0.0,
    calibrate='during',
    bounded=False,
    min_necessity=None,
  )
  # Node gates start at one level, as published.
  config.nodes = config_dict.ConfigDict(
    {'k_coef': 5e-3, 'init_attribution': 0.0}
  )
  config.edges = config_dict.ConfigDict(
    {'k_coef': 3e-3, 'init_attribution': 0.5}
  )
  # Directory of reverse.npz, a compiled program; None: the one that ships.
  config.programs_directory = sections.optional(str)
  config.program_sequences = 128  # of that program
  # Eight jobs as one call, against the same in sequence: on this model, and on
  # that program, with batches of several sizes.
  config.together = config_dict.ConfigDict()
  for gates in ('nodes', 'edges'):
    shared = {'gates': gates, 'k_coef': 3e-3, 'repetitions': 5}
    # Short jobs share attribution, which is little of a whole one.
    for name, batch, steps in (('short', 4, 20), ('whole', 16, 160)):
      config.together[f'model_{gates}_{name}'] = {
        **shared,
        'on': 'model',
        'batch_pairs': batch,
        'steps': steps,
        'repetitions': 2 if name == 'short' else 1,
      }
    for batch in (4, 16, 32):
      config.together[f'program_{gates}_{batch}'] = {
        'on': 'program',
        'batch_pairs': batch,
        'steps': 100,
        **shared,
      }
  return config
