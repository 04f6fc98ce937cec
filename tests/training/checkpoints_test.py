"""Checkpoints are what was saved, under the number of their step."""

import json
import random
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.training import checkpoints
from sparse_interp.training.state import TrainState

# orbax abandons what it was reading.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def state(step, value=None):
  values = jax.random.normal(jax.random.key(step), (48, 32))
  if value is not None:
    values = values.at[3, 4].set(value)
  params = {'h_0': {'kernel': values, 'bias': jnp.zeros(32)}}
  moments = jax.tree.map(jnp.square, params)
  return TrainState(params, ({'count': jnp.int32(step), 'nu': moments},))


ABSTRACT = jax.tree.map(
  lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(0)
)


class Counted(NamedTuple):
  """A state of other fields, one of them an array alone, one of no arrays."""

  count: Any
  scales: Any
  nothing: Any

  @property
  def step(self):
    return self.count


def save(workdir, *steps, keep=2):
  manager = checkpoints.open_manager(workdir, keep)
  for step in steps:
    checkpoints.save(manager, state(step), {'losses': [step]})
  manager.wait_until_finished()
  manager.close()


def restore(workdir, keep=2):
  manager = checkpoints.open_manager(workdir, keep)
  try:
    found = checkpoints.restore(manager, ABSTRACT)
    checkpoints.drop_surplus(manager, keep)
    return found
  finally:
    manager.close()


def refusal(function, *args):
  with pytest.raises(ValueError) as error:
    function(*args)
  message = str(error.value)
  assert '\n' not in message
  return message


def flip(path, bit):
  content = bytearray(path.read_bytes())
  content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(content)


def numbers(workdir):
  return sorted(
    int(path.name)
    for path in (workdir / 'checkpoints').iterdir()
    if path.name.isdecimal()
  )


def test_what_was_saved_comes_back(tmp_path):
  save(tmp_path, 1, 2)
  found, progress = restore(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, found, state(2))
  assert progress == {'losses': [2]}
  params = checkpoints.load_params(tmp_path, 1)
  jax.tree.map(np.testing.assert_array_equal, params, state(1).params)


def test_a_state_of_any_fields_comes_back(tmp_path):
  whole = Counted(jnp.int32(3), {'a': [jnp.ones(2), jnp.zeros(())]}, ((), None))
  manager = checkpoints.open_manager(tmp_path, 1)
  checkpoints.save(manager, whole, {})
  manager.wait_until_finished()
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), whole
  )
  found, _ = checkpoints.restore(manager, like)
  manager.close()
  assert jax.tree.structure(found) == jax.tree.structure(whole)
  jax.tree.map(np.testing.assert_array_equal, found, whole)
  assert isinstance(found.step, jax.Array)


def test_no_flipped_bit_restores_other_numbers(tmp_path):
  save(tmp_path, 7)
  params = checkpoints.load_params(tmp_path)
  step = tmp_path / 'checkpoints' / '7'
  files = sorted(
    path
    for item in ('params', 'progress')
    for path in (step / item).rglob('*')
    if path.is_file()
  )
  rng, refused, messages = random.Random(0), set(), []
  for path in files * 3:
    bit = rng.randrange(8 * path.stat().st_size)
    flip(path, bit)
    try:
      found = checkpoints.load_params(tmp_path)
      jax.tree.map(np.testing.assert_array_equal, found, params)
    except ValueError as error:
      messages.append(str(error))
      refused.add(path.relative_to(step).parts[0])
    flip(path, bit)
  assert refused == {'params', 'progress'}
  assert all(str(step) in m and '\n' not in m for m in messages), messages
  checkpoints.load_params(tmp_path)


@pytest.mark.parametrize('item', ['params', 'opt_state'])
def test_a_flip_in_the_numbers_names_the_last_good_one(tmp_path, item):
  save(tmp_path, 5, 6)
  files = list((tmp_path / 'checkpoints/6' / item).rglob('d/*'))
  flip(max(files, key=lambda path: path.stat().st_size), 8 * 2000)
  message = refusal(restore, tmp_path)
  assert f'got a damaged {tmp_path / "checkpoints/6"} (' in message
  assert 'last good one is step 5: delete the damaged directory' in message
  if item == 'params':
    assert 'damaged' in refusal(checkpoints.load_params, tmp_path)
  shutil.rmtree(tmp_path / 'checkpoints/6')
  assert restore(tmp_path)[1] == {'losses': [5]}


def test_a_checkpoint_under_another_number_is_refused(tmp_path):
  save(tmp_path, 5, 6)
  for name in ('20', '4'):  # the earlier one is read when asked for by number
    shutil.copytree(tmp_path / 'checkpoints/5', tmp_path / 'checkpoints' / name)
  expected = 'must be under the number of its step, got '
  expected += f'{tmp_path / "checkpoints/20"} with step 5 inside; '
  message = refusal(restore, tmp_path)
  assert expected + 'the last good one is step 6: delete' in message
  assert expected + 'delete it' in refusal(checkpoints.load_params, tmp_path)
  refusal(checkpoints.load_params, tmp_path, 4)
  manager = checkpoints.open_manager(tmp_path, 2)
  assert expected in refusal(checkpoints.is_at, manager, 20)
  manager.close()
  shutil.rmtree(tmp_path / 'checkpoints/20')
  assert restore(tmp_path)[1] == {'losses': [6]}


def test_a_record_that_was_edited_to_the_number_is_refused(tmp_path):
  save(tmp_path, 5)
  (tmp_path / 'checkpoints/5').rename(tmp_path / 'checkpoints/6')
  path = tmp_path / 'checkpoints/6/progress/metadata'
  record = json.loads(path.read_text())
  path.write_text(json.dumps({**record, 'step': 6}))
  assert 'does not match its sha256' in refusal(restore, tmp_path)


@pytest.mark.parametrize('saves', [False, True])
def test_a_surplus_checkpoint_does_no_harm_and_goes(tmp_path, saves):
  save(tmp_path, 5, 6, 7, keep=9)
  assert numbers(tmp_path) == [5, 6, 7]
  if saves:
    save(tmp_path, 8)
    assert numbers(tmp_path) == [7, 8]
  else:
    assert restore(tmp_path)[1] == {'losses': [7]}
    assert numbers(tmp_path) == [6, 7]


def test_half_a_surplus_checkpoint_does_no_harm(tmp_path):
  save(tmp_path, 5, 6, 7, keep=9)
  for name in ('params', '_CHECKPOINT_METADATA'):
    path = tmp_path / 'checkpoints/5' / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  assert restore(tmp_path)[1] == {'losses': [7]}
  assert numbers(tmp_path) == [6, 7]


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, value):
  save(tmp_path, 5)
  manager = checkpoints.open_manager(tmp_path, 2)
  message = refusal(checkpoints.save, manager, state(6, value), {})
  manager.close()
  assert message.startswith('params/h_0/kernel must be finite to be saved')
  assert 'at step 6 and in 1 more' in message
  assert f'checkpoint is {tmp_path / "checkpoints/5"};' in message
  assert numbers(tmp_path) == [5]
  moments = state(6).opt_state[0]
  moments['nu'] = state(6, value).params
  manager = checkpoints.open_manager(tmp_path / 'new', 2)
  broken = TrainState(state(6).params, (moments,))
  message = refusal(checkpoints.save, manager, broken, {})
  manager.close()
  assert message.startswith('opt_state/0/nu/h_0/kernel must be finite')
  assert 'there is no checkpoint yet' in message


def test_parameters_of_others_are_kept_by_the_same_rules(tmp_path):
  params = state(1).params
  checkpoints.save_params(tmp_path, params)
  found = checkpoints.load_params(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, found, params)
  files = (tmp_path / 'checkpoints/0/params').rglob('d/*')
  flip(max(files, key=lambda path: path.stat().st_size), 8 * 2000)
  assert 'damaged' in refusal(checkpoints.load_params, tmp_path)
  broken = state(1, np.nan).params
  message = refusal(checkpoints.save_params, tmp_path / 'new', broken)
  assert message.startswith('params/h_0/kernel of the model must be finite')
  assert not (tmp_path / 'new').exists()


def test_checkpoints_of_earlier_versions_are_refused_as_such(tmp_path):
  save(tmp_path, 5)
  path = tmp_path / 'checkpoints/5/progress/metadata'
  path.write_text('{"batches": {}, "losses": []}')
  message = refusal(checkpoints.load_params, tmp_path)
  assert 'no sha256 (an earlier version wrote none)' in message
