"""Checkpoints: all that is known of orbax, in five functions.

A checkpoint is a directory `checkpoints/<step>` with three items: `params`,
`opt_state` and `progress`, a JSON object for what lives on the host (state of
the data iterator, losses not yet logged, seconds spent). It is written in the
background under another name and renamed when complete.
"""

import json
import pathlib
import re
from typing import Any

import jax
import orbax.checkpoint as ocp

from sparse_interp.files import quiet
from sparse_interp.training.state import TrainState

_DIRECTORY = 'checkpoints'


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
      max_to_keep=keep, create=True, enable_async_checkpointing=True
    ),
  )


def save(manager: Any, state: TrainState, progress: dict[str, Any]) -> None:
  """Starts to save; `manager.wait_until_finished()` waits for the end."""
  # Written in the background, while the loop goes on with the same lists.
  progress = json.loads(json.dumps(progress))
  manager.save(
    int(state.step),
    args=ocp.args.Composite(
      params=ocp.args.StandardSave(state.params),
      opt_state=ocp.args.StandardSave(state.opt_state),
      progress=ocp.args.JsonSave(progress),
    ),
  )


@quiet.libraries()
def save_params(workdir: str | pathlib.Path, params: dict[str, Any]) -> None:
  """Writes parameters that were not trained here, as checkpoint 0.

  Args:
    workdir: of the run; a checkpoint 0 that is there is replaced.
    params: parameter tree.
  """
  manager = open_manager(workdir, keep=1)
  if 0 in manager.all_steps():
    manager.delete(0)
  manager.save(0, args=ocp.args.Composite(params=ocp.args.StandardSave(params)))
  manager.wait_until_finished()
  manager.close()


@quiet.libraries()
def restore(
  manager: Any, abstract_state: Any
) -> tuple[TrainState, dict[str, Any]] | None:
  """Reads the latest checkpoint onto the devices that the state asks for.

  Args:
    manager: from `open_manager`.
    abstract_state: TrainState of `jax.ShapeDtypeStruct` with shardings.

  Returns:
    (state, progress), or None when there is no checkpoint.

  Raises:
    ValueError: the latest checkpoint cannot be read. The message names it and
      the latest one that can; going back silently would hide a failing disk.
  """
  steps = sorted(manager.all_steps(), reverse=True)
  if not steps:
    return None
  try:
    return _read(manager, steps[0], abstract_state)
  except Exception as error:  # orbax raises nearly everything
    good = next(
      (s for s in steps[1:] if _is_readable(manager, s, abstract_state)), None
    )
    path = manager.directory / str(steps[0])
    remedy = (
      f'the last good one is step {good}: delete the damaged directory'
      if good is not None
      else 'there is no older good one: delete the checkpoints directory'
    )
    what = 'continue from there' if good is not None else 'begin again'
    raise ValueError(
      f'checkpoint must be complete, got a damaged {path} '
      f'({_gist(error)}); {remedy} and run again to {what}.'
    ) from error


def latest_progress(manager: Any) -> dict[str, Any] | None:
  """What the latest checkpoint knows of the host; None without one.

  Raises:
    ValueError: it cannot be read.
  """
  step = manager.latest_step()
  if step is None:
    return None
  try:
    asked = ocp.args.Composite(progress=ocp.args.JsonRestore())
    return manager.restore(step, args=asked).progress
  except Exception as error:  # orbax raises nearly everything
    raise ValueError(
      'checkpoint must be complete, got a damaged '
      f'{manager.directory / str(step)} ({_gist(error)}); delete it and run '
      'again.'
    ) from error


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
    ValueError: there is no such checkpoint, or it is damaged.
  """
  directory = pathlib.Path(workdir).resolve() / _DIRECTORY
  steps = ocp.utils.checkpoint_steps(directory) if directory.is_dir() else []
  step = max(steps, default=None) if step is None else step
  if step is None or step not in steps:
    raise ValueError(
      f'workdir must hold a checkpoint{"" if step is None else f" {step}"}, '
      f'got none in {directory}; pretrain in this workdir first.'
    )
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      path = directory / str(step) / 'params'
      metadata = checkpointer.metadata(path).item_metadata
      target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=device
        ),
        metadata.tree if hasattr(metadata, 'tree') else metadata,
      )
      return checkpointer.restore(path, target)
  except Exception as error:  # orbax raises nearly everything
    raise ValueError(
      f'checkpoint must be complete, got a damaged {directory / str(step)} '
      f'({_gist(error)}); delete it and run the pretraining again.'
    ) from error


def _read(
  manager: Any, step: int, abstract_state: Any
) -> tuple[TrainState, dict[str, Any]]:
  items = manager.restore(
    step,
    args=ocp.args.Composite(
      params=ocp.args.StandardRestore(abstract_state.params),
      opt_state=ocp.args.StandardRestore(abstract_state.opt_state),
      progress=ocp.args.JsonRestore(),
    ),
  )
  return TrainState(items.params, items.opt_state), items.progress


def _is_readable(manager: Any, step: int, abstract_state: Any) -> bool:
  try:
    _read(manager, step, abstract_state)
  except Exception:  # orbax raises nearly everything
    return False
  return True


def _gist(error: Exception) -> str:
  """The first sentence of an error in one line."""
  text = re.sub(r'\s+', ' ', f'{type(error).__name__}: {error}')
  return text if len(text) <= 120 else text[:117] + '...'
