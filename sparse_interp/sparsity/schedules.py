"""Density over steps, and the learning rate that is tied to it.

`pfrac` is the number of nonzeros relative to the dense model of expansion
factor 1, so that it falls from ef * ef_mlp (all dense) to its final value

    pfrac(i) = p0 + (p1 - p0) * (1 - (1 - s)**exponent),    s in [0, 1],

and every density follows from it: hidden matrices pfrac / (ef * ef_mlp),
embeddings and biases h(pfrac) / ef. Paper section A.1 and the published
training script.

All of it is evaluated on the host in float64 and tabulated per step. A count
is k = int(density * size): one float32 ulp moves it by one for a third of all
steps of a large matrix, and one weight more or less is another model. The
jitted step therefore only looks up int32 and float32 tables.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

ANNEALS = ('linear', 'power_law', 'exponential')
EMBEDDING_SCHEDULES = ('fixed', 'bug')


@dataclasses.dataclass(frozen=True)
class DensitySchedule:
  """Which share of the weights may be nonzero at which step.

  Attributes:
    total_steps: T; the run makes the updates 0..T, T + 1 in all.
    density: final density of the hidden matrices, in (0, 1].
    expansion_factor: width relative to the model of factor 1; embeddings and
      biases end this many times denser than hidden matrices.
    expansion_factor_mlp: the same for the MLP width; None follows
      expansion_factor.
    anneal: 'linear' in pfrac, 'power_law' (a straight line in log step and
      log pfrac) or 'exponential' (a straight line in step and log pfrac).
    exponent: of the linear anneal; above 1 it falls faster at first.
    start_fraction: share of T before the anneal begins.
    stop_fraction: share of T at which the final density is reached.
    embedding_schedule: 'fixed' anneals embeddings in step with the hidden
      matrices (published script); 'bug' keeps them dense until pfrac < ef
      (the runs of the paper).
  """

  total_steps: int
  density: float
  expansion_factor: float = 1.0
  expansion_factor_mlp: float | None = None
  anneal: str = 'linear'
  exponent: float = 1.0
  start_fraction: float = 0.01
  stop_fraction: float = 0.5
  embedding_schedule: str = 'fixed'

  def __post_init__(self):
    if self.total_steps < 1:
      raise ValueError(
        f'total_steps must be at least 1, got {self.total_steps}; '
        'raise train.tokens to one batch or more.'
      )
    if not 0 < self.density <= 1:
      raise ValueError(
        f'sparsity.density must be in (0, 1], got {self.density}; '
        'choose e.g. 1/16, or 1 for a dense model.'
      )
    for name in ('expansion_factor', 'exponent'):
      if not getattr(self, name) > 0:
        raise ValueError(
          f'sparsity.{name} must be positive, got {getattr(self, name)}; '
          'choose e.g. 1.'
        )
    if self.anneal not in ANNEALS:
      raise ValueError(
        f'sparsity.anneal must be one of {ANNEALS}, got {self.anneal!r}; '
        "choose e.g. 'linear'."
      )
    if self.embedding_schedule not in EMBEDDING_SCHEDULES:
      raise ValueError(
        'sparsity.embedding_schedule must be one of '
        f'{EMBEDDING_SCHEDULES}, got {self.embedding_schedule!r}; '
        "choose e.g. 'fixed'."
      )
    if not 0 <= self.start_fraction <= self.stop_fraction <= 1:
      raise ValueError(
        'sparsity.start_fraction and sparsity.stop_fraction must satisfy '
        f'0 <= start <= stop <= 1, got {self.start_fraction} and '
        f'{self.stop_fraction}; choose e.g. 0.01 and 0.5.'
      )
    if self.anneal == 'power_law' and not self.start_fraction > 0:
      raise ValueError(
        'sparsity.start_fraction must be positive for a power_law anneal '
        f'(log of step 0), got {self.start_fraction}; choose e.g. 0.01.'
      )

  @property
  def dense_pfrac(self) -> float:
    """pfrac of the model without any zero: ef * ef_mlp."""
    ef_mlp = self.expansion_factor_mlp
    return self.expansion_factor * (
      self.expansion_factor if ef_mlp is None else ef_mlp
    )

  @property
  def final_pfrac(self) -> float:
    """pfrac once annealed: density * ef * ef_mlp."""
    return self.density * self.dense_pfrac


def all_steps(schedule: DensitySchedule) -> Int[np.ndarray, ' updates']:
  """The step numbers 0..T of a run's updates."""
  return np.arange(schedule.total_steps + 1)


def pfrac(schedule: DensitySchedule) -> Float[np.ndarray, ' updates']:
  """Nonzeros relative to the dense model of expansion factor 1, per update."""
  steps = all_steps(schedule).astype(np.float64)
  start = schedule.start_fraction * schedule.total_steps
  stop = schedule.stop_fraction * schedule.total_steps
  first, last = schedule.dense_pfrac, schedule.final_pfrac
  if stop == start:
    return np.where(steps < start, first, last)
  if schedule.anneal == 'power_law':
    clipped = np.clip(steps, start, stop)
    done = np.log(clipped / start) / np.log(stop / start)
  else:
    done = np.clip((steps - start) / (stop - start), 0.0, 1.0)
  if schedule.anneal == 'linear':
    return first + (last - first) * (1 - (1 - done) ** schedule.exponent)
  # The ends are set, not computed: exp(log(x)) is x only to rounding, and a
  # count is truncated to an integer.
  curve = first * np.exp(done * np.log(last / first))
  return np.where(done <= 0, first, np.where(done >= 1, last, curve))


def hidden_density(schedule: DensitySchedule) -> Float[np.ndarray, ' updates']:
  """Density of hidden matrices and position embeddings, per update.

  Dense for the first tenth of a run, at its final density after half of it:

    >>> schedule = DensitySchedule(
    ...   total_steps=10, density=1 / 4, start_fraction=0.1, stop_fraction=0.5
    ... )
    >>> hidden_density(schedule).tolist()[:7]
    [1.0, 1.0, 0.8125, 0.625, 0.4375, 0.25, 0.25]
  """
  return np.minimum(1.0, pfrac(schedule) / schedule.dense_pfrac)


def embedding_density(
  schedule: DensitySchedule,
) -> Float[np.ndarray, ' updates']:
  """Density of wte, lm_head and biases per update: min(1, h(pfrac) / ef).

  'bug' is h(p) = p. 'fixed' is the line through (ef * ef_mlp, ef) and
  (final, final), so that embeddings begin to thin out at once.
  """
  now = pfrac(schedule)
  ef, last = schedule.expansion_factor, schedule.final_pfrac
  annealed = schedule.dense_pfrac - last
  if schedule.embedding_schedule == 'fixed' and annealed > 0:
    # The share first, then the line: the order decides counts near integers.
    now = last + (ef - last) * ((now - last) / annealed)
  return np.minimum(1.0, now / ef)


def nonzero_counts(
  density: Float[np.ndarray, ' updates'], size: int
) -> Int[np.ndarray, ' updates']:
  """k = int(density * size) per update, as int32.

  >>> nonzero_counts(np.array([1.0, 0.3, 1 / 16]), 100).tolist()
  [100, 30, 6]
  """
  return (density * size).astype(np.int32)


def learning_rate(
  schedule: DensitySchedule, peak: float, warmup_fraction: float
) -> Float[np.ndarray, ' updates']:
  """Warm-up, linear decay to 0, times sqrt(final density / density now).

  Args:
    schedule: gives T and the density that the rate follows.
    peak: learning rate after warm-up at the final density.
    warmup_fraction: share of T with a linearly rising rate, in [0, 1).

  Returns:
    float64 rate per update; the first (if there is warm-up) and the last
    update have rate 0, as in the published loop.

  Raises:
    ValueError: for a rate that is not positive or a fraction out of range.
  """
  if not peak > 0:
    raise ValueError(
      f'optimizer.learning_rate must be positive, got {peak}; '
      'choose e.g. 1.28e-2.'
    )
  if not 0 <= warmup_fraction < 1:
    raise ValueError(
      'optimizer.warmup_fraction must be in [0, 1), got '
      f'{warmup_fraction}; choose e.g. 0.01.'
    )
  steps, total = all_steps(schedule).astype(np.float64), schedule.total_steps
  warmup = int(warmup_fraction * total)
  rising = peak * steps / max(warmup, 1)
  falling = peak * np.minimum(1.0, 1 - (steps - warmup) / (total - warmup))
  rate = np.where(steps < warmup, rising, falling)
  return rate * np.sqrt(schedule.final_pfrac / pfrac(schedule))
