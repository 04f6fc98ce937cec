"""Checkpoints: all that is known of orbax.

A checkpoint is a directory `checkpoints/<step>` with an item for each field of
the state, such as `params` and `opt_state`, and `progress`, a sealed JSON
object that holds the step, what lives on the host (state of the data iterator,
losses not yet logged, seconds spent), and a fingerprint of every array. It is
written in the background under another name and renamed when complete. What is
read is compared with its fingerprints, and the number of a directory with the
step inside; what is saved was finite.
"""

import pathlib
from typing import Any, Protocol, runtime_checkable

import jax
import orbax.checkpoint as ocp

from sparse_interp.files import quiet
from sparse_interp.training import record as record_lib

_DIRECTORY = 'checkpoints'
REMEDY = 'lower the learning rate in another workdir'


@runtime_checkable
class State(Protocol):
  """All that a training step changes: a NamedTuple, with the step inside.

  Its fields are arrays of numbers or trees of them; none is called `progress`.
  """

  @property
  def step(self) -> Any:
    """Number of updates made so far."""

  def _asdict(self) -> dict[str, Any]: ...


@quiet.libraries()
def open_manager(workdir: str | pathlib.Path, keep: int) -> Any:
  """Opens (and makes, if missing) the checkpoints of a run.

  Args:
    workdir: directory of the run.
    keep: number of latest checkpoints that are kept.

  Returns:
    An orbax manager; close it when done.
  """
  return ocp.CheckpointManager(
    pathlib.Path(workdir).resolve() / _DIRECTORY,
    options=ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      create=True,
      enable_async_checkpointing=True,
    ),
  )


def save(
  manager: Any, state: State, progress: dict[str, Any], remedy: str = REMEDY
) -> None:
  """Starts to save; `manager.wait_until_finished()` waits for the end.

  Args:
    manager: from `open_manager`.
    state: what is saved, under the number of its step.
    progress: JSON values of what lives on the host.
    remedy: what to do about a state that is not finite.

  Raises:
    ValueError: a tensor holds an entry that is not finite. Nothing is written.
  """
  step = int(state.step)
  record, broken = record_lib.make(step, state, progress)
  if broken:
    raise ValueError(
      f'{broken[0]} must be finite to be saved, got an entry that is not at '
      f'step {step}{record_lib.and_more(broken)}; {last_good(manager)}; '
      f'{remedy}.'
    )
  items = {
    name: ocp.args.StandardSave(item) for name, item in _items(state).items()
  }
  manager.save(
    step,
    args=ocp.args.Composite(**items, progress=ocp.args.JsonSave(record)),
  )


def _items(state: State) -> dict[str, Any]:
  """What orbax saves by its name: trees, neither empty nor a single array."""
  return {
    name: {name: item} if jax.tree_util.all_leaves([item]) else item
    for name, item in state._asdict().items()
    if jax.tree.leaves(item)
  }


def last_good(manager: Any) -> str:
  """Where to go on from, in words, once all that was begun is written."""
  manager.wait_until_finished()
  step = manager.latest_step()
  if step is None:
    return 'there is no checkpoint yet'
  return f'the last good checkpoint is {manager.directory / str(step)}'


@quiet.libraries()
def save_params(workdir: str | pathlib.Path, params: dict[str, Any]) -> None:
  """Writes parameters that were not trained here, as checkpoint 0.

  Args:
    workdir: of the run; a checkpoint 0 that is there is replaced.
    params: parameter tree.

  Raises:
    ValueError: a tensor holds an entry that is not finite.
  """
  record, broken = record_lib.make(0, {'params': params}, {})
  if broken:
    raise ValueError(
      f'{broken[0]} of the model must be finite, got an entry that is '
      f'not{record_lib.and_more(broken)}; get the model again.'
    )
  manager = open_manager(workdir, keep=1)
  if 0 in manager.all_steps():
    manager.delete(0)
  manager.save(
    0,
    args=ocp.args.Composite(
      params=ocp.args.StandardSave(params),
      progress=ocp.args.JsonSave(record),
    ),
  )
  manager.wait_until_finished()
  manager.close()


def is_at(manager: Any, step: int) -> bool:
  """Whether the latest checkpoint is that of a step, by what is inside.

  Raises:
    ValueError: it is damaged, or stands under the number of another step.
  """
  latest_progress(manager)
  return manager.latest_step() == step


def latest_progress(manager: Any) -> dict[str, Any] | None:
  """What the latest checkpoint knows of the host; None without one.

  Raises:
    ValueError: it is damaged, or stands under the number of another step.
  """
  step = manager.latest_step()
  if step is None:
    return None
  path = manager.directory / str(step)
  try:
    return _record(path)['progress']
  except Exception as error:
    raise record_lib.refusal(path, error, 'delete it and run again') from error


@quiet.libraries()
def restore(
  manager: Any, abstract_state: State
) -> tuple[State, dict[str, Any]] | None:
  """Reads the latest checkpoint onto the devices that the state asks for.

  Args:
    manager: from `open_manager`.
    abstract_state: state of `jax.ShapeDtypeStruct` with shardings.

  Returns:
    (state, progress), or None when there is no checkpoint.

  Raises:
    ValueError: the latest checkpoint cannot be read, is not what was written,
      or stands under the number of another step. The message names it and the
      latest good one; going back silently would hide a failing disk.
  """
  steps = sorted(manager.all_steps(), reverse=True)
  if not steps:
    return None
  try:
    return _read(manager, steps[0], abstract_state)
  except Exception as error:  # orbax raises nearly everything
    good = next(
      (s for s in steps[1:] if _is_good(manager, s, abstract_state)), None
    )
    remedy = (
      f'the last good one is step {good}: delete the damaged directory and run '
      'again to continue from there'
      if good is not None
      else 'there is no older good one: delete the checkpoints directory and '
      'run again to begin again'
    )
    path = manager.directory / str(steps[0])
    raise record_lib.refusal(path, error, remedy) from error


def drop_surplus(manager: Any, keep: int) -> None:
  """Removes checkpoints that a kill kept from being removed.

  Args:
    manager: whose latest checkpoint was restored, and is therefore good.
    keep: number of latest checkpoints that stay.
  """
  for step in sorted(manager.all_steps())[:-keep]:
    manager.delete(step)


def latest_step(workdir: str | pathlib.Path) -> int | None:
  """Number of the latest checkpoint; None without any."""
  return max(_steps(workdir)[1], default=None)


def _steps(workdir: str | pathlib.Path) -> tuple[pathlib.Path, list[int]]:
  directory = pathlib.Path(workdir).resolve() / _DIRECTORY
  steps = ocp.utils.checkpoint_steps(directory) if directory.is_dir() else []
  return directory, steps


@quiet.libraries()
def load_params(
  workdir: str | pathlib.Path, step: int | None = None
) -> dict[str, Any]:
  """Reads the parameters of a run, for stages that come after training.

  Args:
    workdir: directory of the run.
    step: which checkpoint; None means the latest.

  Returns:
    The parameter tree on the default device.

  Raises:
    ValueError: there is no such checkpoint, it is damaged, or it stands under
      the number of another step.
  """
  directory, steps = _steps(workdir)
  step = max(steps, default=None) if step is None else step
  if step is None or step not in steps:
    raise ValueError(
      f'workdir must hold a checkpoint{"" if step is None else f" {step}"}, '
      f'got none in {directory}; pretrain in this workdir first.'
    )
  path = directory / str(step)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  try:
    expected = record_lib.of_params(_record(path))
    target = record_lib.abstract(expected, device)
    with ocp.StandardCheckpointer() as checkpointer:
      params = checkpointer.restore(path / 'params', target['params'])
    record_lib.compare({'params': params}, expected)
    return params
  except Exception as error:  # orbax raises nearly everything
    remedy = 'delete it and run again what wrote it'
    raise record_lib.refusal(path, error, remedy) from error


def _record(path: Any) -> dict[str, Any]:
  """The record of the checkpoint in a directory."""
  file = pathlib.Path(path) / 'progress' / 'metadata'
  return record_lib.read(file, int(path.name))


def _read(
  manager: Any, step: int, abstract_state: State
) -> tuple[State, dict[str, Any]]:
  record = _record(manager.directory / str(step))
  asked = _items(abstract_state)
  found = manager.restore(
    step,
    args=ocp.args.Composite(
      **{name: ocp.args.StandardRestore(item) for name, item in asked.items()}
    ),
  )
  fields = abstract_state._asdict()
  for name in asked:
    single = jax.tree_util.all_leaves([fields[name]])
    fields[name] = found[name][name] if single else found[name]
  state = type(abstract_state)(**fields)
  record_lib.compare(state, record['arrays'])
  if int(state.step) != step:
    raise record_lib.OtherStepError(
      f'an optimizer at step {int(state.step)} inside'
    )
  return state, record['progress']


def _is_good(manager: Any, step: int, abstract_state: State) -> bool:
  try:
    _read(manager, step, abstract_state)
  except Exception:  # noqa: BLE001 (orbax raises nearly everything)
    return False
  return True
