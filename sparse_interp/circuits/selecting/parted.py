"""Training pairs in three parts: for gates, for the search, and held out."""

from typing import NamedTuple

import numpy as np

from sparse_interp.circuits.gating import calibration
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import (
  GatedModel,
  add_full,
  all_outputs,
)
from sparse_interp.circuits.prune_config import PruneConfig


class Split(NamedTuple):
  """Training data in its three parts, each with the full model's answers.

  Attributes:
    fitting: gates are learned on these.
    chosen: the search measures its loss on these.
    holdout: seen by neither.
    most_shift: of a bounded calibration; None for a free one.
  """

  fitting: Batch
  chosen: Batch
  holdout: Batch
  most_shift: float | None = None


def part(model: GatedModel, train: Batch, config: PruneConfig) -> Split:
  """Pairs for learning gates, for the search, and held out from both.

  Raises:
    ValueError: if there are too few of them.
  """
  seen = config.selection_pairs + config.holdout_pairs
  if train.size - seen < config.batch_pairs:
    raise ValueError(
      'selection_pairs + holdout_pairs + batch_pairs must be at most the '
      f'number of training pairs, {train.size}, got '
      f'{seen + config.batch_pairs}; encode more pairs or lower one of them.'
    )
  if config.kl_weight > 0 or config.target_on == 'kl':
    train = add_full(model, train)
  indices = np.arange(train.size)
  chosen = train.take(indices[: config.selection_pairs])
  holdout = train.take(indices[config.selection_pairs : seen])
  return Split(
    train.take(indices[seen:]),
    chosen,
    holdout if config.holdout_pairs else chosen,
    calibration.centre(all_outputs(model, {}, train))
    if config.bounded
    else None,
  )
