"""The search for the fastest kernels, at its smallest sizes."""

import json

import jax.numpy as jnp
import pytest

from experiments.benchmarks import tune as tune_config
from sparse_interp.benchmarks import tuning, variants
from sparse_interp.ops.tuned import choice
from sparse_interp.runs import tune


@pytest.fixture
def config():
  return tune_config.get_config('tiny')


@pytest.mark.slow
def test_every_variant_is_checked_and_timed(config, tmp_path, capsys):
  result = tune.run(config, str(tmp_path))
  assert result['card'] == choice.card()
  assert len(result['cases']) == result['cases_asked'] == 4
  for case in result['cases']:
    assert not case['failed']
    assert case['milliseconds'].keys() == case['quartiles'].keys()
    # Emulated kernels are slower than all else.
    assert choice.winner(case['milliseconds']) is None
  written = json.loads((tmp_path / 'tuned.json').read_text())
  assert written == json.loads(json.dumps(result))
  said = capsys.readouterr().out
  assert said.count('plain jax stays') == 4
  # All is there: the same command times nothing.
  again = tune.run(config, str(tmp_path))
  assert again['cases'] == written['cases']
  assert 'samples' not in capsys.readouterr().out


def test_it_stops_at_its_budget_and_goes_on(
  config, tmp_path, capsys, monkeypatch
):
  ways = {'plain': lambda x: x + 1, 'ours': lambda x: 1 + x}
  small = variants.Variants(
    'sum', {'n': 3}, lambda key: jnp.arange(3.0), ways, 0.0
  )
  make_cases = tune.make_cases
  monkeypatch.setattr(tune, 'make_cases', lambda config: [small])
  config.budget = 0.0
  assert not tune.run(config, str(tmp_path))['cases']
  assert 'the same command goes on' in capsys.readouterr().out
  config.budget = 1e9
  (case,) = tune.run(config, str(tmp_path))['cases']
  assert set(case['milliseconds']) == {'plain', 'ours'}
  config.only = 'nothing'
  with pytest.raises(ValueError, match='only must be part'):
    make_cases(config)
  with pytest.raises(ValueError, match='must be one of'):
    tune_config.get_config('huge')


def test_what_is_wrong_or_refused_is_named_and_not_timed():
  def refused(x):
    raise NotImplementedError('not on this card')

  ways = {
    'plain': lambda x: x + 1,
    'same': lambda x: 1 + x,
    'wrong': lambda x: x + 2,
    'narrow': lambda x: (x + 1).astype(jnp.bfloat16),
    'refused': refused,
  }
  case = variants.Variants(
    'sum', {'n': 3}, lambda key: jnp.arange(3.0), ways, 0.0
  )
  found = tuning.time_case(case, 2, 2, lambda text: None)
  assert set(found['milliseconds']) == {'plain', 'same'}
  assert 'other entries' in found['failed']['wrong']
  assert 'bfloat16' in found['failed']['narrow']
  assert found['failed']['refused'] == 'not on this card'


def test_what_is_hopeless_is_given_up(monkeypatch):
  clock = iter(range(1000))
  monkeypatch.setattr(tuning.time, 'perf_counter', lambda: float(next(clock)))
  assert len(tuning._samples(lambda: None, 20, best=1e9)) == 20
  assert len(tuning._samples(lambda: None, 20, best=1.0)) == 3
