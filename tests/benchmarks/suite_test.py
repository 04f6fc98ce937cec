"""Cases are checked before they are timed, and a stopped suite goes on."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from sparse_interp.benchmarks import (
  ceilings,
  roofline,
  suite,
  tables,
  topk_cases,
)
from sparse_interp.benchmarks.case import (
  AbsentError,
  Case,
  Competitor,
  error_of,
)
from sparse_interp.files import sealed
from sparse_interp.files import workdir as workdir_lib

ABOUT = {
  'device': '2 CPU cores',
  'processor': 'some',
  'versions': {'jax': '0.10.2'},
  'date': '2026-11-22',
}


def by(function):
  def prepare(inputs):
    return lambda: function(inputs['x'])

  return Competitor(prepare, lambda result: result, lambda result: result)


def absent(inputs):
  raise AbsentError('is not installed')


def a_case(name='doubling', **competitors):
  return Case(
    name=name,
    group='row_sparse',
    parameters={'size': 5},
    make=lambda seed: {'x': np.random.default_rng(seed).random(5)},
    reference=lambda inputs: 2 * inputs['x'],
    competitors={'ours': by(lambda x: x + x)} | competitors,
    tolerance=1e-6,
    flops=5.0,
    bytes=40.0,
  )


def run(cases, directory, budget=100.0):
  lines = []
  found = suite.run_cases(
    cases,
    directory,
    {'date': ABOUT['date']},
    lines.append,
    repetitions=4,
    seconds=1.0,
    budget=budget,
    seed=0,
  )
  return found, lines


def test_what_is_wrong_or_absent_is_not_timed():
  case = a_case(
    wrong=by(lambda x: 2.01 * x),
    nothing=by(lambda x: x * np.nan),
    shape=by(lambda x: x[:4]),
    other=Competitor(absent, np.asarray, np.asarray),
  )
  results = suite.run_case(case, 4, 1.0, seed=0)['results']
  assert results['ours']['repetitions'] == 4
  low, high = results['ours']['quartiles_ms']
  assert 0 < low <= results['ours']['median_ms'] <= high
  assert 'median_ms' not in results['wrong']
  assert '0.005' in results['wrong']['wrong']
  assert results['nothing'] == {'wrong': 'not finite'}
  assert 'shape' in results['shape']['wrong']
  assert results['other'] == {'absent': 'is not installed'}


def test_exact_cases_want_the_same_zeros():
  close = np.array([1.0, 1e-9], np.float32)
  kept = np.array([1.0, 0.0], np.float32)
  assert error_of(close, kept, exact=False) == (pytest.approx(1e-9), None)
  assert error_of(close, kept, exact=True)[1] == 'other entries are zero'


def test_a_suite_goes_on_with_the_first_case_that_is_not_done(tmp_path):
  calls = []

  def counted(x):
    calls.append(1)
    return 2 * x

  cases = [a_case(f'case_{i}', ours=by(counted)) for i in range(3)]
  found, lines = run(cases, tmp_path, budget=-1.0)
  assert not found
  assert '3 cases left' in lines[0]
  found, lines = run(cases[:2], tmp_path)
  assert [f['name'] for f in found] == ['case_0', 'case_1']
  assert 's left' in lines[0]
  before = len(calls)
  found, _ = run(cases[:2], tmp_path)
  assert len(calls) == before
  found, _ = run(cases, tmp_path)
  assert len(found) == 3
  stored = sealed.read_json(tmp_path / 'cases' / 'case_2.json', 'x')
  assert stored == found[2]


@pytest.mark.parametrize('size', [1, 10, 1000])
def test_no_two_magnitudes_are_equal_where_ties_would_decide(size):
  values = topk_cases._distinct((1, size), 3)
  assert np.unique(np.abs(values)).size == size
  assert np.abs(values).min() >= np.float32(1e-3)
  assert np.abs(values).max() <= 8


def test_the_plot_holds_every_point_and_the_roof(tmp_path):
  cases = [
    *ceilings.ceiling_cases(16, 100, 'float32'),
    a_case(other=by(lambda x: 2 * x)),
  ]
  found, _ = run(cases, tmp_path)
  text = roofline.svg(found, 'two < three, $5')
  assert text == roofline.svg(found, 'two < three, $5')
  assert text.count('two &lt; three, $5') == 1
  groups = {
    group.get('id'): [child.tag.rpartition('}')[2] for child in group.iter()]
    for group in ET.fromstring(text).iter('{http://www.w3.org/2000/svg}g')
  }
  assert groups['ours'].count('use') == groups['other'].count('use') == 1
  assert groups['roof'].count('path') == 1
  assert roofline.svg(found[2:], 'no ceiling') is None


def test_points_and_the_roof_are_drawn_where_they_are():
  marks = [('ours', 'a', 0.5, 2e9), ('ours', 'b', 8.0, 1e10)]
  axes = Figure().subplots()
  roofline._draw(axes, marks, 4e10, 1e10)
  points, roof = axes.lines
  assert points.get_xydata().tolist() == [[0.5, 2e9], [8, 1e10]]
  assert roof.get_xydata().tolist() == [[0.25, 2.5e9], [4, 4e10], [16, 4e10]]
  assert axes.get_xscale() == axes.get_yscale() == 'log'


def test_tables_are_made_from_results_alone(tmp_path):
  other = Competitor(absent, np.asarray, np.asarray)
  found, _ = run([a_case(other=other)], tmp_path)
  result = {'about': ABOUT, 'least_repetitions': 4, 'cases': found}
  workdir_lib.write_json(tmp_path / 'kernels_here.json', result)
  page = f'before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n'
  made = tables.with_tables(page, tmp_path)
  assert made.startswith('before\n')
  assert made.endswith('\nafter\n')
  assert '| size | ours |' in made
  assert 'old' not in made
  assert tables.with_tables(made, tmp_path) == made
  with pytest.raises(ValueError, match=r'docs/kernels\.md must have'):
    tables.with_tables('nothing', tmp_path)
