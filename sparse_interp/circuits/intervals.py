"""95 % intervals of what is measured on pairs.

Pairs are drawn from all that could be posed, so that intervals are over pairs;
random circuits are drawn, too, and their spread is part of theirs. Ends are
those of the bootstrap, corrected for bias and skewness (BCa; Efron 1987), where
the values differ at all.
"""

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
_RESAMPLES = 2000

Interval = list[float]


def of_mean(values: Float[np.ndarray, 'pairs'], seed: int) -> Interval:
  """Interval of the mean over pairs, [low, high].

  Args:
    values: one number per pair.
    seed: of the pairs that are drawn again.
  """
  return of_statistic((values,), lambda x, axis: np.mean(x, axis), seed)


def of_share(hits: Float[np.ndarray, 'pairs'], seed: int) -> Interval:
  """Interval of the mean of shares in [0, 1], one per pair.

  Where all pairs are alike, drawing them again would say that no other pair
  can differ: then the interval is Wilson's for so many pairs.
  """
  if np.ptp(hits) > 0 or not 0 <= hits[0] <= 1:
    return of_mean(hits, seed)
  from scipy import stats

  count = hits.size
  right = round(float(hits[0]) * count)
  found = stats.binomtest(right, count).proportion_ci(LEVEL, method='wilson')
  return [float(found.low), float(found.high)]


def of_statistic(
  values: tuple[Float[np.ndarray, 'pairs'], ...],
  statistic: Callable[..., np.ndarray],
  seed: int,
) -> Interval:
  """Interval of what is computed from several numbers per pair.

  Args:
    values: arrays of equal length; pairs are drawn again as a whole.
    statistic: of such arrays and an axis.
    seed: of the draws.
  """
  from scipy import stats  # takes a second, which a start can do without

  arrays = tuple(np.asarray(one, np.float64) for one in values)
  if all(np.ptp(one) == 0 for one in arrays):
    return [float(statistic(*arrays, axis=-1))] * 2
  for method in ('BCa', 'percentile'):
    # Pairs that differ in their last bits alone have no skewness to correct.
    with warnings.catch_warnings(action='ignore'):
      found = stats.bootstrap(
        arrays,
        statistic,
        n_resamples=_RESAMPLES,
        paired=True,
        vectorized=True,
        confidence_level=LEVEL,
        method=method,
        rng=np.random.default_rng(seed),
      ).confidence_interval
    if np.isfinite([found.low, found.high]).all():
      break
  return [float(found.low), float(found.high)]


def over_draws(values: Float[np.ndarray, 'draws pairs']) -> Interval:
  """Interval of the mean over random circuits and pairs.

  Two spreads add up: between the means of the draws, and between pairs. Student
  t with the degrees of freedom of Satterthwaite (1946).

  Args:
    values: of every draw on the same pairs; at least two of each.
  """
  from scipy import stats

  draws, pairs = values.shape
  mean = float(values.mean())
  parts = np.array(
    [
      values.mean(axis=1).var(ddof=1) / draws,
      values.mean(axis=0).var(ddof=1) / pairs,
    ]
  )
  error = float(np.sqrt(parts.sum()))
  if error == 0:
    return [mean, mean]
  freedom = parts.sum() ** 2 / np.sum(parts**2 / [draws - 1, pairs - 1])
  half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
  return [mean - half, mean + half]
