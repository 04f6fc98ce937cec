"""The published formulas, at points worked out by hand."""

import numpy as np
import pytest

from sparse_interp.sparsity import schedules


def schedule(**changes):
  fields = {
    'total_steps': 1000,
    'density': 1 / 64,
    'expansion_factor': 4.0,
  }
  return schedules.DensitySchedule(**(fields | changes))


def test_linear_anneal_is_a_line_in_pfrac_between_its_fractions():
  pfrac = schedules.pfrac(schedule())
  assert len(pfrac) == 1001
  np.testing.assert_array_equal(pfrac[:11], 16.0)  # dense: ef**2
  np.testing.assert_allclose(pfrac[255], (16 + 0.25) / 2, rtol=1e-12)
  np.testing.assert_array_equal(pfrac[500:], 0.25)


def test_exponent_makes_the_linear_anneal_fall_faster_at_first():
  pfrac = schedules.pfrac(schedule(exponent=3.0))
  share = 1 - (1 - 0.5) ** 3
  np.testing.assert_allclose(pfrac[255], 16 + (0.25 - 16) * share, rtol=1e-12)


def test_power_law_is_a_line_in_log_step_and_log_pfrac():
  pfrac = schedules.pfrac(schedule(anneal='power_law'))
  steps = np.arange(10, 501)
  slope = np.diff(np.log(pfrac[10:501])) / np.diff(np.log(steps))
  np.testing.assert_allclose(slope, slope[0], rtol=1e-9)
  assert (pfrac[10], pfrac[500], pfrac[1000]) == (16.0, 0.25, 0.25)


def test_exponential_loses_the_same_share_at_every_step():
  pfrac = schedules.pfrac(schedule(anneal='exponential'))
  ratio = pfrac[11:501] / pfrac[10:500]
  np.testing.assert_allclose(ratio, (0.25 / 16) ** (1 / 490), rtol=1e-9)


@pytest.mark.parametrize('anneal', schedules.ANNEALS)
def test_every_anneal_is_monotone_and_ends_exactly(anneal):
  density = schedules.hidden_density(schedule(anneal=anneal))
  assert (np.diff(density) <= 0).all()
  assert density[0] == 1.0
  assert density[-1] == 1 / 64


def test_embeddings_end_an_expansion_factor_denser():
  for variant in schedules.EMBEDDING_SCHEDULES:
    made = schedule(embedding_schedule=variant)
    assert schedules.embedding_density(made)[-1] == 1 / 16
    assert schedules.embedding_density(made)[0] == 1.0


def test_fixed_embeddings_thin_out_at_once_and_those_of_the_bug_late():
  fixed = schedules.embedding_density(schedule())
  # Halfway h(pfrac) is halfway between ef and the final pfrac.
  np.testing.assert_allclose(fixed[255], (4 + 0.25) / 2 / 4, rtol=1e-12)
  bug = schedules.embedding_density(schedule(embedding_schedule='bug'))
  pfrac = schedules.pfrac(schedule())
  np.testing.assert_array_equal(bug == 1.0, pfrac >= 4.0)
  # 76 % of the anneal at ef 4 and final pfrac 1/4, as published.
  assert abs((np.argmax(bug < 1) - 10) / 490 - 0.76) < 0.005


def test_density_one_stays_dense_everywhere():
  made = schedule(density=1.0)
  assert (schedules.hidden_density(made) == 1).all()
  assert (schedules.embedding_density(made) == 1).all()


def test_without_an_anneal_the_final_density_holds_from_the_first_step():
  made = schedule(start_fraction=0.0, stop_fraction=0.0)
  assert (schedules.hidden_density(made) == 1 / 64).all()


def test_learning_rate_warms_up_decays_and_follows_the_density():
  rate = schedules.learning_rate(schedule(density=1.0), 0.1, 0.1)
  np.testing.assert_allclose(rate[:101], np.arange(101) / 1000, rtol=1e-12)
  np.testing.assert_allclose(rate[100:], np.linspace(0.1, 0, 901), atol=1e-12)
  sparse = schedules.learning_rate(schedule(), 0.1, 0.1)
  density = schedules.hidden_density(schedule())
  np.testing.assert_allclose(
    sparse, rate * np.sqrt((1 / 64) / density), rtol=1e-12
  )
  # Published plateau while dense: sqrt(pfrac) / ef = 0.125 at the defaults.
  np.testing.assert_allclose(sparse[5] / rate[5], 0.125, rtol=1e-12)


def test_counts_are_truncated_like_the_published_ones():
  counts = schedules.nonzero_counts(np.array([0.9999, 0.5, 1.0]), 3)
  np.testing.assert_array_equal(counts, [2, 1, 3])
  assert counts.dtype == np.int32


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'density': 0.0}, 'sparsity.density'),
    ({'density': 1.5}, 'sparsity.density'),
    ({'density': float('nan')}, 'sparsity.density'),
    ({'expansion_factor': 0.0}, 'sparsity.expansion_factor'),
    ({'exponent': -1.0}, 'sparsity.exponent'),
    ({'anneal': 'cubic'}, 'sparsity.anneal'),
    ({'embedding_schedule': 'none'}, 'sparsity.embedding_schedule'),
    ({'start_fraction': 0.6}, 'sparsity.start_fraction'),
    ({'anneal': 'power_law', 'start_fraction': 0.0}, 'start_fraction'),
    ({'total_steps': 0}, 'total_steps'),
  ],
)
def test_wrong_fields_are_named_in_one_line(changes, field):
  with pytest.raises(ValueError) as error:
    schedule(**changes)
  assert field in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('peak', 'warmup', 'field'),
  [
    (0.0, 0.1, 'optimizer.learning_rate'),
    (0.1, 1.0, 'optimizer.warmup_fraction'),
  ],
)
def test_wrong_rates_are_named_in_one_line(peak, warmup, field):
  with pytest.raises(ValueError, match=field):
    schedules.learning_rate(schedule(), peak, warmup)
