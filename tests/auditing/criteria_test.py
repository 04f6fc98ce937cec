"""What is asked of a circuit, one bound at a time."""

import pytest

from sparse_interp.auditing import criteria

_GOOD = {
  'test_loss': 0.05,
  'raw_loss': 0.12,
  'calibrated_necessity_loss': 0.66,
  'necessity_loss': 0.8,
  'random_loss': 0.69,
  'listed_excess': 0.0,
  'size_share': 0.03,
  'under': {
    kind: {'test_loss': 0.05, 'test_loss_interval': [0.04, 0.06]}
    for kind in ('mean', 'subsets', 'resample', 'counterfactual')
  },
}
_ASKED = {'target_loss': 0.15, 'ablation': 'mean, resample'}


def _numbers(asked=None, **changes):
  measured = {
    f'{name}_interval': [value - 0.01, value + 0.01]
    for name, value in {**_GOOD, **changes}.items()
    if isinstance(value, float) and name != 'size_share'
  } | _GOOD
  return criteria.numbers({**measured, **changes}, asked or _ASKED)


def _missed(numbers):
  return [name for name, one in numbers.items() if one.passed is False]


def test_a_circuit_that_meets_everything_is_found():
  numbers = _numbers()
  assert _missed(numbers) == []
  assert {name for name, one in numbers.items() if one.passed} == {
    'loss_calibrated',
    'loss_resample',
    'listed_excess',
    'necessity_calibrated',
    'random_loss',
    'size_share',
  }


@pytest.mark.parametrize(
  ('measure', 'value', 'name'),
  [
    ('test_loss', 0.145, 'loss_calibrated'),  # its interval ends at 0.155
    ('calibrated_necessity_loss', 0.505, 'necessity_calibrated'),
    ('random_loss', 0.3, 'random_loss'),
    ('listed_excess', 0.7, 'listed_excess'),
    ('size_share', 1.0, 'size_share'),  # the whole model
  ],
)
def test_each_bound_is_for_the_end_of_the_interval(measure, value, name):
  assert _missed(_numbers(**{measure: value})) == [name]


def test_a_raw_loss_of_the_rest_counts_for_nothing():
  numbers = _numbers(necessity_loss=9.0, calibrated_necessity_loss=0.1)
  assert _missed(numbers) == ['necessity_calibrated']
  assert numbers['necessity_raw'].bound is None


def test_every_ablation_that_was_asked_for_must_hold():
  under = {**_GOOD['under']}
  under['resample'] = {'test_loss': 2.0, 'test_loss_interval': [1.9, 2.1]}
  numbers = _numbers(under=under)
  assert _missed(numbers) == ['loss_resample']
  assert criteria.holds_under({'under': under}, _ASKED) == (
    'mean',
    'subsets',
    'counterfactual',
  )


def test_a_target_on_kl_is_for_kl_under_every_ablation():
  asked = {**_ASKED, 'target_on': 'kl'}
  near = {'test_kl': 0.01, 'test_kl_interval': [0.0, 0.02]}
  far = {'test_kl': 0.9, 'test_kl_interval': [0.8, 1.0]}
  under = {'mean': near, 'resample': far, 'subsets': far}
  numbers = _numbers(asked, test_kl=0.01, under=under)
  assert numbers['kl'].passed
  assert _missed(numbers) == ['kl_resample']
  assert numbers['loss_calibrated'].bound is None
  assert criteria.holds_under({'under': under}, asked) == ('mean',)


def test_what_has_no_number_is_named():
  measured = {k: v for k, v in _GOOD.items() if k != 'size_share'}
  numbers = criteria.numbers(measured, _ASKED)
  assert criteria.not_measured(numbers, _ASKED) == ['size_share']
  assert criteria.not_measured({}, _ASKED)[0] == 'loss_calibrated'
