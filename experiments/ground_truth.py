"""Methods against known circuits: compiled programs and planted ones.

    python -m sparse_interp --config=ground_truth \
        --workdir=runs/ground_truth

Measured on 2 CPU cores, seed 0, edge masks under task means with target 0.01,
at most 256 training sequences of varied lengths: F1 of component edges is 1 for
six of the seven compiled programs, 0.857 for count_less_freq, 0.980 on average.
There, queries at their means do not select everything, though other constants
would (extra m0>a1.h0.q); BOS at its mean moves a threshold (extra embed>m1);
and without the key weight of count 0, which no token has, nothing need clear
that count at BOS (missed embed>m0). Greedy removal reproduces the published
sets of frac_prevs (5 edges under zero, 3 under resample ablation) and reverse
(10 and 2, with sequences of length 3; 8 under resample where lengths vary).

With --config.model_workdir=runs/quickstart, planted lookup, chain and both are
recovered by edge masks with F1 1 (single weights, mean ablation, target
0.15; about 8 minutes on one core). They fail as a whole when one part fails, so
gates that start level get no gradient and collapse; gates that start in the
order of integrated attribution (`init_attribution`) do not.

On single weights of a component edge, and for methods other than masks, see the
table: at these sizes elimination brings a random ranking to the same components
on most programs, so that F1 tells little about a ranking; AUROC does.
"""

from ml_collections import config_dict

from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.configs import sections


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = config_dict.ConfigDict()
  config.run = 'ground_truth'
  config.seed = 0

  config.programs = 'all'  # or names with commas between
  # Directory of files <program>.npz; None: those that ship. A program without
  # a file is compiled, which needs the extra `tracr`.
  config.programs_directory = sections.optional(str)
  # With commas between, of those here.
  config.methods = 'edge_masks,node_masks,eap,eap_ig,attribution,random'
  config.sequences = 256  # of varied lengths, at most; and as many to test

  # The same for all programs and methods; the run sets `gates`.
  config.compiled = sections.section(
    PruneConfig,
    leave_out=('gates',),
    ablation='task_mean',
    # A hundredth of the variance of the outputs may get lost, by convention:
    # chosen beforehand, not by what comes out.
    target_loss=1e-2,
    margin=5e-3,
    standard_errors=0.0,
    attempts=1,
    calibrate='after',
    steps=400,
    batch_pairs=32,
    k_coef=1e-3,
    learning_rate=1e-2,
    init_attribution=0.0,
    min_necessity=None,
    selection_pairs=64,
    holdout_pairs=128,
  )

  # Model to plant programs in; None: compiled ones only.
  config.model_workdir = sections.optional(str)
  config.pairs = 512  # of prompts for training; half as many test
  config.length = 40  # tokens of every prompt
  config.planted_method = 'edge_masks'  # or 'eap_ig'
  # Planted circuits fail as a whole: masks from a level start get no gradient,
  # so `init_attribution` must not be 0.
  config.planted = sections.section(
    PruneConfig,
    gates='edges',
    ablation='mean',
    steps=160,
    k_coef=3e-3,
    standard_errors=0.0,
    calibrate='during',
    bounded=False,
    min_necessity=None,
    selection_pairs=64,
    holdout_pairs=128,
  )
  return config
