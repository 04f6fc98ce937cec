"""The loop trains what is no model, and loses nothing of it."""

import concurrent.futures
import json
import os
import random
import re
import shutil
import signal
import time
import types

import jax
import numpy as np
import pytest

from sparse_interp.files import interrupts, metric_rows
from sparse_interp.training import checkpoints, loop, metrics
from tests.processes import Starter
from tests.training import regression
from tests.training.regression import STEPS, Examples, train


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """(workdir, what came out) of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  return workdir, train(workdir)


def rows(workdir):
  found = metric_rows.read(workdir / 'metrics.jsonl')
  for row in found:
    del row['examples_per_second']
  return found


def steps_of(workdir):
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())


def assert_same_end(workdir, undisturbed):
  """Compares rows, parameters, and the fingerprints of all of the state."""
  other, _ = undisturbed
  assert rows(workdir) == rows(other)
  assert steps_of(workdir) == steps_of(other) == [50, STEPS]
  ours, theirs = (checkpoints.load_params(one) for one in (workdir, other))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  records = [
    json.loads((one / f'checkpoints/{STEPS}/progress/metadata').read_text())
    for one in (workdir, other)
  ]
  assert records[0]['arrays'] == records[1]['arrays']
  assert records[0]['progress']['batches'] == {'taken': STEPS}


def refusal(*args, **options):
  with pytest.raises(ValueError) as error:
    train(*args, **options)
  assert '\n' not in str(error.value)
  return str(error.value)


def at(step, do):
  """Batches before one of which something happens."""
  return Examples(lambda taken: do() if taken == step else None)


class Killed(BaseException):
  """Nobody catches it."""


def kill():
  raise Killed


def send(name):
  """Sends a signal to this process, and waits until it is heard."""
  stop = interrupts._watcher.stop
  assert stop.unsaved  # or else the signal ends the tests at once, status 0
  os.kill(os.getpid(), getattr(signal, name))
  while stop.signal is None:
    time.sleep(0.01)


def test_it_learns_the_line(undisturbed):
  workdir, trained = undisturbed
  assert int(trained.state.step) == STEPS
  slope, intercept = (trained.state.params[n] for n in ('slope', 'intercept'))
  np.testing.assert_allclose(slope, regression.SLOPE, atol=0.05)
  np.testing.assert_allclose(intercept, regression.INTERCEPT, atol=0.05)
  assert [entry['phase'] for entry in trained.versions] == ['regression']
  found = rows(workdir)
  assert [row['step'] for row in found] == [*range(10, 61, 10), 63]
  assert [row['step'] for row in found if 'off' in row] == [20, 40, 60, 63]
  assert found[-1]['loss'] < 0.02 < 1 < found[0]['loss']
  assert found[-1]['off'] < 0.05


def test_a_row_has_the_mean_loss_since_the_row_before(undisturbed):
  state, examples, losses = regression.init(), Examples(), []
  for _ in range(20):
    state, numbers = regression.step(state, next(examples))
    losses.append(float(numbers['loss']))
  first, second = rows(undisturbed[0])[:2]
  assert first['loss'] == np.mean(losses[:10])
  assert second['loss'] == np.mean(losses[10:])


@pytest.mark.parametrize(
  'moment',
  [
    34,
    *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 12, 25, STEPS - 1)),
  ],
)
def test_what_was_cut_off_ends_with_the_same_bits(
  moment, undisturbed, tmp_path, capsys
):
  with pytest.raises(Killed):
    train(tmp_path, at(moment, kill))
  again = train(tmp_path)
  saved = moment // 25 * 25
  said = f'continues from step {saved}\n' in capsys.readouterr().out
  assert said == (saved > 0)
  assert_same_end(tmp_path, undisturbed)
  states = (again.state, undisturbed[1].state)
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_finished_run_trains_no_more(undisturbed, tmp_path):
  shutil.copytree(undisturbed[0], tmp_path / 'run')
  record = tmp_path / f'run/checkpoints/{STEPS}/progress/metadata'
  before = json.loads(record.read_text())['progress']['wall_seconds']
  assert before > 0
  begun = time.monotonic()
  again = train(tmp_path / 'run', at(STEPS, kill))
  assert 0 < again.wall_seconds - before < time.monotonic() - begun
  states = (again.state, undisturbed[1].state)
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert_same_end(tmp_path / 'run', undisturbed)
  train(tmp_path / 'run', keep=1)
  assert steps_of(tmp_path / 'run') == [STEPS]


@pytest.mark.parametrize(
  'name', ['SIGTERM', pytest.param('SIGINT', marks=pytest.mark.slow)]
)
def test_a_signal_has_it_save_and_end_in_one_line(
  name, undisturbed, tmp_path, capfd
):
  with pytest.raises(SystemExit) as end:
    train(tmp_path, at(37, lambda: send(name)))
  assert end.value.code == 0
  assert capfd.readouterr().out.splitlines()[-1] == (
    f'regression stopped by {name} after step 38, saved; the same command '
    'goes on'
  )
  assert steps_of(tmp_path) == [25, 38]
  train(tmp_path)
  assert_same_end(tmp_path, undisturbed)


def test_a_signal_after_the_loop_ends_the_program_all_the_same(
  tmp_path, monkeypatch, capfd
):
  run = loop.run

  def run_and_send(*args, **options):
    trained = run(*args, **options)
    send('SIGTERM')
    return trained

  monkeypatch.setattr(loop, 'run', run_and_send)
  with pytest.raises(SystemExit) as end:
    train(tmp_path, steps=3)
  assert end.value.code == 0
  last = capfd.readouterr().out.splitlines()[-1]
  assert last == 'regression stopped by SIGTERM; the same command goes on'


def test_a_second_owner_is_refused(tmp_path):
  with (
    loop.opened(tmp_path, {'seed': 5}, 'regression'),
    concurrent.futures.ThreadPoolExecutor() as pool,
  ):
    message = pool.submit(refusal, tmp_path).result()
  assert message.startswith(f'workdir must not be in use, got {tmp_path}')
  assert f'process {os.getpid()} on' in message


def test_another_configuration_is_refused(undisturbed):
  with (
    pytest.raises(ValueError, match='seed = 5 there and 6 asked'),
    loop.opened(undisturbed[0], {'seed': 6}, 'regression'),
  ):
    pass


@pytest.mark.parametrize('moment', [33, 44])
def test_a_loss_that_is_not_finite_names_step_and_last_good_checkpoint(
  moment, tmp_path
):
  def broken(state, batch):
    state, numbers = regression.step(state, batch)
    return state, {'loss': numbers['loss'] / (state.count != moment)}

  message = refusal(tmp_path, step=broken)
  assert message == (
    f'loss must be finite, got inf at step {moment}; the last good checkpoint '
    f'is {tmp_path / "checkpoints" / "25"}; lower the learning rate in another '
    'workdir.'
  )
  assert rows(tmp_path)[-1]['step'] == moment // 10 * 10
  assert steps_of(tmp_path) == [25]


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
  def broken(state, batch):
    # The loss is that of before the update, and finite.
    state, numbers = regression.step(state, batch)
    params = jax.tree.map(lambda x: x / (state.count != 50), state.params)
    return state._replace(params=params), numbers

  message = refusal(tmp_path, step=broken, remedy='draw another line')
  assert message.startswith('params/intercept must be finite to be saved')
  assert 'at step 50 and in 1 more' in message
  assert message.endswith(f'{tmp_path}/checkpoints/25; draw another line.')
  assert steps_of(tmp_path) == [25]


def test_a_measurement_that_is_not_finite_is_not_logged(tmp_path):
  def measure(step, numbers, state, thorough):
    return {'loss': 1.0, 'off': float('nan') if step == 40 else 1.0}

  message = refusal(tmp_path, measure=measure)
  assert message.startswith('off must be finite, got nan at step 40; the last')
  assert [row['step'] for row in rows(tmp_path)] == [10, 20, 30]


def test_progress_has_speed_and_time_left(tmp_path, monkeypatch, capsys):
  now = [0.0]

  def pass_time(taken):
    now[0] += 100.0 if taken == 0 else 2.0  # compiled at first

  fake = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(metrics, 'time', fake)
  train(tmp_path, Examples(pass_time), log_every=20)
  lines = capsys.readouterr().out.splitlines()
  losses = [row['loss'] for row in rows(tmp_path)]
  ends = [
    f'16 examples/s  {left} left'
    for left in ('1 min 26 s', '46 s', '6 s', '0 s')
  ]
  assert lines == [
    f'regression step {step}/63  loss {loss:.4f}  {end}'
    for step, loss, end in zip((20, 40, 60, 63), losses, ends, strict=True)
  ]


def test_other_data_is_refused(tmp_path):
  train(tmp_path, hashes={'table': 'a' * 64}, steps=5)
  message = refusal(tmp_path, hashes={'table': 'b' * 64})
  assert 'a table with hash bbbbbbbbbbbb instead of aaaaaaaaaaaa' in message
  assert 'with hash none instead' in refusal(tmp_path)
  train(tmp_path, hashes={'table': 'a' * 64}, steps=6)


def test_batches_that_end_too_early_are_said(tmp_path):
  def end():
    raise StopIteration

  message = refusal(tmp_path, at(20, end))
  assert message.startswith('batches must be at least as many as steps, 63')
  assert 'after 20; repeat them' in message


@pytest.mark.parametrize(
  'name', ['steps', 'log_every', 'eval_every', 'checkpoint_every']
)
def test_an_interval_below_one_is_refused(tmp_path, name):
  message = refusal(tmp_path, **{name: 0})
  assert message == f'{name} must be at least 1, got 0; choose more.'


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """Starts the regression in a process of its own."""
  starter = Starter(
    tmp_path_factory.mktemp('runs'), 'tests.training.regression'
  )
  yield starter.start
  starter.close()


def kill_at_last(run, seconds):
  time.sleep(seconds)
  run.process.kill()
  assert run.end()[0] == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_killed_at_random_steps_it_ends_with_the_same_bits(
  seed, start, undisturbed, tmp_path
):
  rng = random.Random(seed)
  run, count = start(tmp_path), rng.randrange(4)
  assert run.wait_for(lambda run: len(run.lines) >= count)
  kill_at_last(run, rng.uniform(0, 0.2))
  run = start(tmp_path)
  assert run.wait_for(lambda _: (tmp_path / 'checkpoints' / '25').exists())
  kill_at_last(run, rng.uniform(0, 0.8))
  run = start(tmp_path)
  status, errors = run.end()
  assert (status, errors) == (0, '')
  output = '\n'.join(run.lines)
  assert re.search(r'continues from step (25|50|63)', output), output
  assert_same_end(tmp_path, undisturbed)


@pytest.mark.slow
def test_two_programs_share_no_workdir_and_a_signal_is_one_line(
  start, undisturbed, tmp_path
):
  run = start(tmp_path)
  assert run.wait_for('step 20/')
  assert f'process {run.process.pid} on' in refusal(tmp_path)
  run.process.send_signal(signal.SIGTERM)
  status, errors = run.end()
  assert (status, errors) == (0, '')
  stopped = [line for line in run.lines if 'stopped by SIGTERM after' in line]
  assert stopped == run.lines[-1:]
  assert 'the same command goes on' in run.lines[-1]
  train(tmp_path)
  assert_same_end(tmp_path, undisturbed)
