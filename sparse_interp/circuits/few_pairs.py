"""Pruning on the few pairs that there are."""

import dataclasses

from sparse_interp.circuits.prune_config import PruneConfig


def for_pairs(config: PruneConfig, pairs: int) -> PruneConfig:
  """The configuration, with shares in place of numbers where pairs are few.

  Gates are learned on at least half of the pairs; the others choose and hold
  out in the proportion that was asked for.

  Args:
    config: what is asked for where there are pairs enough.
    pairs: training pairs that there are, at least 4.

  Returns:
    The configuration itself where it leaves half of the pairs to the gates.
  """
  asked = config.selection_pairs + config.holdout_pairs
  most = pairs // 2
  if asked <= most and config.batch_pairs <= pairs - asked:
    return config
  if asked > most:
    selection = max(1, most * config.selection_pairs // asked)
    holdout = most * config.holdout_pairs // asked
  else:
    selection, holdout = config.selection_pairs, config.holdout_pairs
  return dataclasses.replace(
    config,
    selection_pairs=selection,
    holdout_pairs=holdout,
    batch_pairs=min(config.batch_pairs, pairs - selection - holdout),
  )
