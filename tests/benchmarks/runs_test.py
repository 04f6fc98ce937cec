"""The benchmarks run in one command, at their smallest sizes."""

import json
import sys

import numpy as np
import pytest

from experiments.benchmarks import kernels as kernels_config
from experiments.benchmarks import pruning as pruning_config
from experiments.benchmarks import step_time as step_time_config
from sparse_interp.runs import kernels, prune_time, step_time


@pytest.mark.slow
def test_kernels_are_timed_beside_what_is_installed(tmp_path):
  config = kernels_config.get_config('tiny')
  result = kernels.run(config, str(tmp_path))
  assert result['cases_done'] == result['cases_asked'] == len(result['cases'])
  groups = {case['group'] for case in result['cases']}
  assert groups == {
    'ceilings',
    'abs_topk',
    'projection',
    'row_sparse',
    'block_sparse',
  }
  for case in result['cases']:
    for name, found in case['results'].items():
      # On a CPU, torch has no product for some of its own formats.
      known = 'median_ms' in found or 'absent' in found
      assert known or (name, 'failed' in found) == ('torch_bsr', True), found
  written = json.loads((tmp_path / 'kernels.json').read_text())
  assert written == json.loads(json.dumps(result))
  assert (tmp_path / 'roofline.svg').exists()


def test_without_matplotlib_a_run_says_so_and_goes_on(
  tmp_path, capsys, monkeypatch
):
  marks = [
    {'median_ms': 1, 'flops_per_second': f, 'bytes_per_second': 1e9}
    for f in (1e9, 0)
  ]
  found = [
    {'group': group, 'name': 'x', 'flops': 1, 'bytes': 1, 'results': results}
    for group, results in (
      ('ceilings', {'product': marks[0], 'copy': marks[1]}),
      ('row_sparse', {'ours': marks[0]}),
    )
  ]
  path = tmp_path / 'roofline.svg'
  kernels._plot(found, 'title', path)
  assert path.read_text().startswith('<?xml')
  path.unlink()
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  kernels._plot(found, 'title', path)
  assert not path.exists()
  said = capsys.readouterr().out
  assert said.count('\n') == 1
  assert 'roofline.svg is left out, since it needs matplotlib' in said
  assert "pip install -e '.[plot]'" in said


def test_kernels_of_one_name_and_fields_that_are_wrong(tmp_path):
  config = kernels_config.get_config('tiny')
  config.only = 'nothing_of_that_name'
  with pytest.raises(ValueError, match='only must be'):
    kernels.run(config, str(tmp_path))
  config.only = 'projection'
  assert [c.group for c in kernels.make_cases(config)] == ['projection']
  config.repetitions = 0
  with pytest.raises(ValueError, match='repetitions must be'):
    kernels.make_cases(config)
  for module in (kernels_config, pruning_config, step_time_config):
    with pytest.raises(ValueError, match='must be one of'):
      module.get_config('huge')


@pytest.mark.slow
def test_steps_take_turns_and_are_written(tmp_path):
  config = step_time_config.get_config('tiny')
  config.repetitions = 2
  config.steps = ('sparse', 'dense', 'torch')
  result = step_time.run(config, str(tmp_path))
  written = json.loads((tmp_path / 'step_time.json').read_text())
  assert written == json.loads(json.dumps(result))
  assert result['steps']['sparse']['repetitions'] == 2
  present = {'sparse', 'dense', 'torch'} - set(result['absent'])
  assert set(result['steps']) == present
  assert len(result['ratios']) == len(present) - 1


def test_flops_of_a_step_are_those_of_dense_products():
  config = step_time_config.get_config('laptop')
  weights = 3 * 12 * 128**2 + 128 * 2048
  mixing = 3 * 128 * 128
  expected = 6 * 32 * 128 * (weights + mixing)
  assert step_time.flops_per_step(config) == expected


@pytest.mark.parametrize('densities', [('1/64',), (0.0,), (2.0,)])
def test_densities_that_are_none_are_named(tmp_path, densities):
  config = pruning_config.get_config('tiny')
  config.densities = densities
  with pytest.raises(ValueError, match='densities must be numbers in') as error:
    prune_time.run(config, str(tmp_path / 'run'))
  assert repr(densities[0]) in str(error.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_frozen_models_are_evaluated_and_pruned_both_ways(tmp_path):
  config = pruning_config.get_config('tiny')
  result = prune_time.run(config, str(tmp_path))
  (row,) = result['densities']
  for job in ('evaluate', 'prune'):
    assert row[job]['error'] <= 1e-3
    assert row[job]['speedup'] > 0
    assert row[job]['dense']['repetitions'] == config.repetitions
  before = (tmp_path / 'densities').stat().st_mtime_ns
  prune_time.run(config, str(tmp_path))
  assert (tmp_path / 'densities').stat().st_mtime_ns == before
  assert np.isfinite(row['prune']['speedup'])
