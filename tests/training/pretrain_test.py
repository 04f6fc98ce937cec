"""The run: interrupted, resumed, refused, stopped."""

import json
import os
import random
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.files import interrupts, model_files
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPTConfig
from sparse_interp.sparsity import statistics
from sparse_interp.training import (
  checkpoints,
  inputs,
  measure,
  metrics,
  pretrain,
  sharding,
)
from sparse_interp.training import state as state_lib
from tests.training.results import assert_same_result, rows

STEPS = 61


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Runs in this process use one device, like those in their own."""
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  monkeypatch.setattr(sharding, 'make_mesh', lambda fsdp: mesh)


def test_final_weights_have_exactly_the_asked_nonzeros(undisturbed):
  summary = json.loads((undisturbed / 'summary.json').read_text())
  counts = summary['nonzeros']
  assert all(c['asked'] == c['found'] for c in counts.values()), counts
  hidden = counts['h_0/mlp/c_fc/kernel']
  assert hidden == {'asked': 1024, 'found': 1024, 'size': 4096}
  assert counts['wte/embedding']['found'] == 300 * 32 // 2
  assert counts['bigram_table']['found'] == 300 * 300
  params = checkpoints.load_params(undisturbed)
  found = statistics.nonzero_counts(params)
  assert {n: int(c) for n, c in found.items()} == {
    n: c['found'] for n, c in counts.items()
  }


def test_summary_says_what_was_asked_and_by_what_it_was_made(undisturbed):
  summary = json.loads((undisturbed / 'summary.json').read_text())
  assert summary['asked']['config']['data']['corpora'] == [['idioms', 1.0]]
  assert summary['asked']['seed'] == 0
  assert summary['left_out'] == {}
  assert summary['device'] == '1 x cpu'
  assert summary['wall_seconds'] > 0
  for name in ('corpus_hash', 'tokenizer_hash', 'code_version'):
    assert len(summary[name]) > 8


def test_metrics_have_a_row_for_every_logged_step(undisturbed):
  found = rows(undisturbed)
  assert [row['step'] for row in found] == [*range(5, 61, 5), 61]
  assert found[-1]['train_loss'] < found[0]['train_loss'] - 0.5
  validated = [row['step'] for row in found if 'validation_loss' in row]
  assert validated == [20, 40, 60, 61]
  assert found[0]['density'] > 0.8 > 0.25 == found[-1]['density']
  summary = json.loads((undisturbed / 'summary.json').read_text())
  sparse = sum(
    c['found']
    for name, c in summary['nonzeros'].items()
    if name != 'bigram_table' and 'ln_' not in name and 'sink' not in name
  )
  assert found[-1]['nonzeros'] == sparse
  assert max(row['mask_churn'] for row in found) > 0
  for name in ('gradient_rms', 'dead_neurons', 'dead_attention_channels'):
    assert all(row[name] >= 0 for row in found)


def test_last_n_checkpoints_are_kept(undisturbed):
  kept = {path.name for path in (undisturbed / 'checkpoints').iterdir()}
  assert kept == {'60', '61'}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_has_the_loop_save_and_end(
  name, config, tmp_path, monkeypatch, capfd
):
  progress_line = metrics.progress_line

  def interrupted(step, *numbers):
    if step == 10:
      stop = interrupts._watcher.stop
      os.kill(os.getpid(), getattr(signal, name))
      while stop.signal is None:
        time.sleep(0.01)
    return progress_line(step, *numbers)

  monkeypatch.setattr(metrics, 'progress_line', interrupted)
  with pytest.raises(SystemExit) as end:
    pretrain.run(config, str(tmp_path))
  monkeypatch.setattr(metrics, 'progress_line', progress_line)
  assert end.value.code == 0
  lines = capfd.readouterr().out.splitlines()
  assert f'stopped by {name} after step 11, saved' in lines[-1]
  assert 'the same command goes on' in lines[-1]
  assert (tmp_path / 'checkpoints' / '11').is_dir()
  pretrain.run(config, str(tmp_path))
  assert [row['step'] for row in rows(tmp_path)] == [*range(5, 61, 5), 61]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_run_stopped_and_killed_ends_with_the_same_bits(
  name, start, undisturbed, tmp_path
):
  workdir = tmp_path / 'run'
  run = start(workdir)
  assert run.wait_for('step 10/')
  run.process.send_signal(getattr(signal, name))
  status, errors = run.end()
  assert status == 0, errors
  assert f'stopped by {name} after step' in run.lines[-1]
  saved = max(int(p.name) for p in (workdir / 'checkpoints').iterdir())
  assert 10 <= saved < STEPS
  run = start(workdir)
  assert run.wait_for('step 35/')
  run.process.kill()
  run.end()
  run = start(workdir)
  status, errors = run.end()
  assert status == 0, errors
  assert any('continues from step' in line for line in run.lines)
  assert_same_result(workdir, undisturbed)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
  start, undisturbed, tmp_path
):
  rng, killed = random.Random(0), 0
  for _ in range(5):
    # Nothing is shared that was compiled for the run that it ends like.
    run, count = start(tmp_path, shared_cache=False), rng.randrange(6)
    run.wait_for(lambda run, count=count: len(run.lines) >= count)
    time.sleep(rng.uniform(0, 0.3))
    run.process.kill()
    killed += run.end()[0] == -signal.SIGKILL
  assert killed == 5
  status, errors = start(tmp_path, shared_cache=False).end()
  assert status == 0, errors
  assert_same_result(tmp_path, undisturbed)


def test_a_finished_run_says_so_and_changes_nothing(
  undisturbed, config, capsys
):
  before = (undisturbed / 'summary.json').read_text()
  summary = pretrain.run(config, str(undisturbed))
  assert 'done already' in capsys.readouterr().out
  assert (undisturbed / 'summary.json').read_text() == before
  assert summary == workdir_lib.read_summary(undisturbed)


def test_load_model_returns_architecture_and_weights(undisturbed, tmp_path):
  model, params = pretrain.load_model(undisturbed)
  assert isinstance(model, GPTConfig)
  assert (model.vocab_size, model.n_layer) == (300, 1)
  assert params['wte']['embedding'].shape == (300, 32)
  with pytest.raises(ValueError, match='pretrain'):
    pretrain.load_model(tmp_path)


def test_another_configuration_is_refused_and_nothing_written(
  undisturbed, config
):
  before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob('*')}
  config.optimizer.eps = 0.2
  with pytest.raises(ValueError) as error:
    pretrain.run(config, str(undisturbed))
  assert 'optimizer.eps = 0.1 there and 0.2 asked' in str(error.value)
  assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob('*')} == before


def truncate(step, item):
  """Cuts the largest file of a checkpoint's item in half."""
  files = [path for path in (step / item).rglob('*') if path.is_file()]
  path = max(files, key=lambda path: path.stat().st_size)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# orbax abandons what it was reading.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize(
  'item',
  [
    'params',
    *(
      pytest.param(n, marks=pytest.mark.slow) for n in ('opt_state', 'progress')
    ),
  ],
)
def test_a_truncated_checkpoint_is_named_with_the_last_good_one(
  undisturbed, config, tmp_path, item
):
  workdir = tmp_path / 'run'
  shutil.copytree(undisturbed, workdir)
  (workdir / 'summary.json').unlink()
  truncate(workdir / 'checkpoints' / '61', item)
  with pytest.raises(ValueError) as error:
    pretrain.run(config, str(workdir))
  message = str(error.value)
  assert 'damaged' in message
  assert str(workdir / 'checkpoints' / '61') in message
  assert 'step 60' in message
  assert '\n' not in message
  if item == 'params':
    with pytest.raises(ValueError, match='damaged'):
      checkpoints.load_params(workdir)
  truncate(workdir / 'checkpoints' / '60', item)
  with pytest.raises(ValueError, match='no older good one'):
    pretrain.run(config, str(workdir))


def test_text_that_changed_since_the_start_is_refused(
  undisturbed, config, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(undisturbed, workdir)
  (workdir / 'summary.json').unlink()
  state = {'corpus': 'a', 'tokenizer': 'b'}
  with pytest.raises(ValueError, match=r'data\.corpora'):
    inputs.check_same(state, state | {'corpus': 'c'})


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_step_and_last_good_checkpoint(
  config, tmp_path, monkeypatch
):
  def make_step(model, optimizer, names, regrow_every):
    def step(state, tokens):
      adam = state.opt_state[1]
      adam = adam._replace(count=adam.count + 1)
      opt_state = (state.opt_state[0], adam, *state.opt_state[2:])
      loss = jnp.where(adam.count == 33, jnp.nan, 1.0) + 0 * tokens.sum()
      numbers = dict.fromkeys(('gradient_rms', 'mask_churn'), jnp.zeros(()))
      numbers['train_loss'] = loss
      return state._replace(opt_state=opt_state), numbers

    return step

  monkeypatch.setattr(state_lib, 'make_train_step', make_step)
  # This step changes no weights, and so keeps too many.
  monkeypatch.setattr(measure.Measure, '_check', lambda *_: None)
  config.data.validation_fraction = 0.0
  with pytest.raises(ValueError) as error:
    pretrain.run(config, str(tmp_path))
  message = str(error.value)
  assert 'step 33' in message
  assert str(tmp_path / 'checkpoints' / '30') in message
  assert '\n' not in message
  assert rows(tmp_path)[-1]['step'] == 30


@pytest.mark.parametrize(
  ('section', 'field', 'value'),
  [
    ('data', 'corpora', (('files:/nowhere/*.py', 1.0),)),
    ('data', 'length', 100_000),
  ],
)
def test_a_wrong_corpus_leaves_nothing_behind(
  config, tmp_path, section, field, value
):
  config[section][field] = value
  config.train.tokens = 10**9
  with pytest.raises(ValueError, match=r'data\.'):
    pretrain.run(config, str(tmp_path / 'new' / 'run'))
  assert not list(tmp_path.iterdir())


def test_donated_steps_do_not_disturb_a_checkpoint_being_written(tmp_path):
  manager = checkpoints.open_manager(tmp_path, 1)
  state = state_lib.TrainState(
    {'w': jnp.arange(2.0**20)}, ({'count': jnp.int32(0)},)
  )
  step = jax.jit(
    lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0
  )
  state = step(state)
  checkpoints.save(manager, state, {})
  for _ in range(50):
    state = step(state)
  jax.block_until_ready(state)
  manager.wait_until_finished()
  manager.close()
  saved = checkpoints.load_params(tmp_path)
  np.testing.assert_array_equal(saved['w'], np.arange(2.0**20) + 1)


@pytest.mark.slow
def test_a_state_that_is_not_finite_leaves_the_last_good_checkpoint(
  undisturbed, config, tmp_path, monkeypatch
):
  workdir = tmp_path / 'run'
  shutil.copytree(undisturbed, workdir)
  (workdir / 'summary.json').unlink()
  shutil.rmtree(workdir / 'checkpoints' / '61')
  make_step = state_lib.make_train_step

  def make_broken_step(*args):
    step = make_step(*args)

    def broken(state, tokens):
      # The loss is that of before the update, and finite.
      state, numbers = step(state, tokens)
      params = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), state.params)
      return state._replace(params=params), numbers

    return broken

  monkeypatch.setattr(state_lib, 'make_train_step', make_broken_step)
  with pytest.raises(ValueError) as error:
    pretrain.run(config, str(workdir))
  assert 'must be finite' in str(error.value)
  good = workdir / 'checkpoints' / '60'
  assert f'last good checkpoint is {good}' in str(error.value)
  assert [path.name for path in good.parent.iterdir()] == ['60']


@pytest.mark.slow
def test_files_that_were_deleted_are_made_anew(undisturbed, config, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(undisturbed, workdir)
  names = ('tokenizer.json', model_files.SAMPLE, 'model.json')
  for name in names:
    (workdir / name).unlink()
    pretrain.run(config, str(workdir))
    before, after = (d / name for d in (undisturbed, workdir))
    assert before.read_bytes() == after.read_bytes()
  for name in names:
    content = bytearray((undisturbed / name).read_bytes())
    content[200] ^= 1
    (workdir / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} must be') as error:
      pretrain.run(config, str(workdir))
    assert 'delete it and run again' in str(error.value)
    assert (workdir / name).read_bytes() == content
    shutil.copy(undisturbed / name, workdir / name)
