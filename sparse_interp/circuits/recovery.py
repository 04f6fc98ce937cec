"""How much of a known circuit was found: of a set, and of a ranking."""

from collections.abc import Hashable
from collections.abc import Set as AbstractSet

import numpy as np
from jaxtyping import Bool, Float


def set_scores(
  found: AbstractSet[Hashable], truth: AbstractSet[Hashable]
) -> dict[str, float]:
  """Precision, recall and F1; a share of nothing is 1, and F1 of 0 and 0 is 0.

  Args:
    found: edges or weights that a method keeps.
    truth: those of the known circuit.

  Returns:
    {'precision', 'recall', 'f1'}.
  """
  hits = len(found & truth)
  precision = hits / len(found) if found else 1.0
  recall = hits / len(truth) if truth else 1.0
  both = len(found) + len(truth)
  return {
    'precision': precision,
    'recall': recall,
    'f1': 2 * hits / both if both else 1.0,
  }


def auroc(
  scores: Float[np.ndarray, 'candidates'], truth: Bool[np.ndarray, 'candidates']
) -> float | None:
  """Chance that a true candidate scores above a false one; ties count half.

  Returns:
    None if all candidates are true, or none is.
  """
  from scipy import stats  # takes a second, which a start can do without

  true, false = scores[truth], scores[~truth]
  if not (true.size and false.size):
    return None
  # Mann and Whitney's U counts such pairs; its p-value is not asked for, and
  # an exact one would take long.
  above = stats.mannwhitneyu(true, false, method='asymptotic').statistic
  return float(above / (true.size * false.size))
