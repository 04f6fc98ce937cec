"""The hyper-parameter search, where two edges are the right answer."""

import dataclasses
import json
import logging
import shutil
import sys

import jax
import numpy as np
import pytest

from sparse_interp.circuits.gating import task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import gate_steps
from sparse_interp.circuits.selecting import from_ranking, parted
from sparse_interp.circuits.tuning import search, search_space

# Gates that hardly move from where their noise put them.
_BAD = PruneConfig(
  steps=25,
  batch_pairs=8,
  learning_rate=3e-4,
  init_noise_scale=0.3,
  selection_pairs=16,
  holdout_pairs=16,
  calibrate='after',
  init_attribution=0.0,
  min_necessity=None,
)
_TRUE_EDGES = 2


@pytest.fixture(scope='module')
def model(known):
  return known.model


@pytest.fixture(scope='module')
def train(known):
  return task_loss.make_pairs(known.train)


@pytest.fixture(scope='module')
def found(model, train, tmp_path_factory):
  """A search that nothing interrupts, and its directory."""
  directory = tmp_path_factory.mktemp('search') / 'new'
  shown, messages = [], []
  handler = logging.Handler()
  handler.emit = lambda record: messages.append(record.getMessage())
  logging.getLogger('jax').addHandler(handler)
  gate_steps.run_chunks.clear_cache()
  with jax.log_compiles():
    result = search.search(
      model, train, _BAD, 10, 4, 0, directory, lambda x: shown.append(dict(x))
    )
  logging.getLogger('jax').removeHandler(handler)
  compiled = sum(
    'Finished XLA compilation of jit(run_chunks)' in message
    for message in messages
  )
  return result, directory, shown, compiled


def _without_seconds(trials):
  return [{**trial, 'seconds': None} for trial in trials]


class _KilledError(Exception):
  pass


def test_search_improves_on_a_bad_start_and_never_loses_to_it(found):
  trials = found[0].trials
  for name in search_space.ranges(_BAD):
    assert trials[0]['params'][name] == getattr(_BAD, name)
  edges = [trial['edges'] for trial in trials]
  assert _TRUE_EDGES <= min(edges) < edges[0]
  best = min(trials, key=lambda trial: (trial['edges'], trial['loss']))
  assert found[0].best_config == search_space.configure(_BAD, best['params'])


def test_the_best_ranking_makes_the_best_circuit(model, train, found):
  result = found[0]
  config = dataclasses.replace(result.best_config, attempts=1, eliminate=False)
  pruned = from_ranking.select(
    from_ranking.units_of(model, config),
    result.best_order,
    result.best_active,
    parted.part(model, train, config),
    config,
  )
  best = min(result.trials, key=lambda trial: trial['value'])
  assert pruned.keep.sum() == best['units']


def test_an_iteration_is_one_compiled_call_for_all_its_jobs(found):
  result, _, shown, compiled = found
  assert compiled == 1
  # 10 trials, 4 at a time, make 3 iterations, the last of them not full.
  ends = [x for x in shown if x['phase'] == 'optimise' and x['step'] == 25]
  assert len(ends) == 3
  done = [x for x in shown if x['phase'] == 'search']
  assert [x['trial'] for x in done] == [4, 8, 10]
  assert done[-1]['edges'] == min(trial['edges'] for trial in result.trials)


def test_every_trial_is_on_disk(found):
  result, directory, _, _ = found
  listed = json.loads((directory / 'trials.json').read_text())
  assert listed['trials'] == result.trials
  assert [trial['trial'] for trial in result.trials] == list(range(10))
  names = {f'trial_{n}.npz' for n in range(10)} | {'trials.json'}
  assert {path.name for path in directory.iterdir()} == names
  for n in range(10):
    with np.load(directory / f'trial_{n}.npz') as arrays:
      units = np.sort(arrays['order'])
      assert arrays['active'] <= units.size
    np.testing.assert_array_equal(units, np.arange(units.size))


@pytest.mark.slow
@pytest.mark.parametrize('moment', [('optimise', 4), ('search', 1)])
def test_a_killed_search_ends_like_one_that_was_not(
  model, train, found, tmp_path, moment
):
  phase, calls = moment
  left = [calls]

  def kill(numbers):
    left[0] -= numbers['phase'] == phase
    if left[0] < 0:
      raise _KilledError

  run = lambda progress: search.search(  # noqa: E731
    model, train, _BAD, 10, 4, 0, tmp_path, progress
  )
  with pytest.raises(_KilledError):
    run(kill)
  before = json.loads((tmp_path / 'trials.json').read_text())['trials']
  assert 0 < len(before) < 10
  result = run(None)
  # What was finished is kept as it was, not run again.
  assert result.trials[: len(before)] == before
  assert _without_seconds(result.trials) == _without_seconds(found[0].trials)
  assert result.best_config == found[0].best_config
  np.testing.assert_array_equal(result.best_order, found[0].best_order)


def test_a_finished_search_runs_nothing(model, train, found, monkeypatch):
  monkeypatch.setattr(search, 'optimize_together', None)
  again = search.search(model, train, _BAD, 10, 4, 0, found[1])
  assert again.trials == found[0].trials
  np.testing.assert_array_equal(again.best_order, found[0].best_order)


def test_the_seed_repeats_the_search_without_a_directory(model, train, found):
  again = search.search(model, train, _BAD, 4, 4, 0)
  assert _without_seconds(again.trials) == _without_seconds(found[0].trials[:4])


def test_another_search_does_not_go_on_in_the_directory(model, train, found):
  other = dataclasses.replace(_BAD, clip=0.5)
  with pytest.raises(ValueError, match=r'same search, got .* with base = '):
    search.search(model, train, other, 10, 4, 0, found[1])
  with pytest.raises(ValueError, match='with seed = 0 there and 1 asked'):
    search.search(model, train, _BAD, 10, 4, 1, found[1])


def test_an_unreadable_directory_is_named(model, train, tmp_path):
  (tmp_path / 'trials.json').write_text('{')
  with pytest.raises(ValueError, match=r'trials\.json must be as it was wri'):
    search.search(model, train, _BAD, 4, 4, 0, tmp_path)


def test_a_damaged_journal_is_refused(model, train, found, tmp_path):
  result, directory, _, _ = found
  shutil.copytree(directory, tmp_path / 'w')
  best = min(result.trials, key=lambda trial: trial['value'])['trial']
  for name in ('trials.json', f'trial_{best}.npz'):
    path = tmp_path / 'w' / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} must be as it was') as error:
      search.search(model, train, _BAD, 10, 4, 0, tmp_path / 'w')
    assert f'delete {tmp_path / "w"} or choose another' in str(error.value)
    shutil.copy(directory / name, path)


@pytest.mark.parametrize(('trials', 'parallel'), [(0, 4), (4, 0)])
def test_numbers_below_one_are_named(model, train, trials, parallel):
  with pytest.raises(ValueError, match=r'^\w+ must be at least 1'):
    search.search(model, train, _BAD, trials, parallel, 0)


def test_a_target_that_the_full_model_misses_is_refused(model, train):
  hard = dataclasses.replace(_BAD, target_loss=1e-9, margin=0.0)
  with pytest.raises(ValueError, match='target_loss must be at least the full'):
    search.search(model, train, hard, 4, 4, 0)


def test_without_optuna_the_remedy_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'optuna', None)
  with pytest.raises(ValueError, match=r"pip install -e '\.\[search\]'") as e:
    search_space.propose(_BAD, [], 1, 0)
  assert '\n' not in str(e.value)


def test_the_loss_decides_between_equally_many_edges_only():
  assert search.objective(3, 0.1) < search.objective(3, 0.2)
  assert search.objective(3, 100.0) < search.objective(4, 0.0)
  assert search.objective(0, 0.0) == 0


def test_every_proposal_is_in_range_and_zero_stays_zero():
  base = dataclasses.replace(
    PruneConfig(), k_coef=0.0, inv_beta2=0.9, warmup_fraction=0.7
  )
  space = search_space.ranges(base)
  assert 'k_coef' not in space
  done = []
  for seed in range(3):
    for params in search_space.propose(base, done, 8, seed):
      config = search_space.configure(base, params)
      assert config.k_coef == 0
      for name, (low, high, _) in space.items():
        assert low <= getattr(config, name) <= high
      done.append((params, params['learning_rate']))
  assert len({params['learning_rate'] for params, _ in done}) == len(done)


def test_results_count_from_eight_trials_on():
  base = PruneConfig()
  tried = search_space.propose(base, [], 8, seed=0)

  def following(trials, sign):
    done = [
      (params, float(sign * i)) for i, params in enumerate(tried[:trials])
    ]
    return search_space.propose(base, done, 1, seed=0)

  assert following(7, 1) == following(7, -1)
  assert following(8, 1) != following(8, -1)
