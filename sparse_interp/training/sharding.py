"""Where arrays live: a mesh ('data', 'fsdp') and one rule for the state.

Batches are split over both axes; a tensor is split over 'fsdp' along its
largest divisible axis, and small ones are replicated. Axes are Auto: the
compiler inserts the gathers, and the model stays free of sharding.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

# Below this many entries a tensor is not worth a gather.
SMALLEST_SHARDED = 4096


def make_mesh(fsdp: int, devices: list[jax.Device] | None = None) -> Mesh:
  """Arranges all devices as (data, fsdp).

  Args:
    fsdp: devices that share one copy of the state.
    devices: the devices; None means all.

  Raises:
    ValueError: `fsdp` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  if fsdp < 1 or len(devices) % fsdp:
    count = len(devices)
    fitting = [str(n) for n in range(1, count + 1) if count % n == 0]
    raise ValueError(
      f'train.fsdp must divide the number of devices, {count}, got {fsdp}; '
      f'choose {" or ".join(fitting)}.'
    )
  return jax.make_mesh(
    (len(devices) // fsdp, fsdp),
    ('data', 'fsdp'),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def tensor_sharding(
  mesh: Mesh, shape: tuple[int, ...], smallest: int = SMALLEST_SHARDED
) -> NamedSharding:
  """Sharding of one tensor of the state."""
  ways = mesh.shape['fsdp']
  axes = [axis for axis, size in enumerate(shape) if size % ways == 0]
  if ways == 1 or not axes or np.prod(shape) < smallest:
    return NamedSharding(mesh, PartitionSpec())
  largest = max(axes, key=lambda axis: shape[axis])
  spec = [None] * len(shape)
  spec[largest] = 'fsdp'
  return NamedSharding(mesh, PartitionSpec(*spec))


def state_shardings(
  mesh: Mesh, abstract_state: Any, smallest: int = SMALLEST_SHARDED
) -> Any:
  """Shardings of a tree of arrays or `jax.ShapeDtypeStruct`."""
  return jax.tree.map(
    lambda leaf: tensor_sharding(mesh, leaf.shape, smallest), abstract_state
  )


def placed(abstract_state: Any, shardings: Any) -> Any:
  """A tree of `jax.ShapeDtypeStruct` that says where its arrays shall live."""
  return jax.tree.map(
    lambda leaf, where: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=where
    ),
    abstract_state,
    shardings,
  )


def on_first_device(abstract_state: Any) -> Any:
  """`placed`, with every array on the first device of this process."""
  where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return placed(
    abstract_state, jax.tree.map(lambda leaf: where, abstract_state)
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of a (batch, time) array: rows over all devices."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Raises ValueError unless every device gets the same number of rows."""
  if batch_size % mesh.size:
    raise ValueError(
      'data.batch_size must be divisible by the number of devices, '
      f'{mesh.size}, got {batch_size}; choose e.g. '
      f'{max(1, batch_size // mesh.size) * mesh.size}.'
    )


def put_batch(
  mesh: Mesh, rows: Int[np.ndarray, 'rows time']
) -> Int[Array, 'batch time']:
  """Makes the global batch from the rows of this process."""
  return jax.make_array_from_process_local_data(batch_sharding(mesh), rows)


def device_name() -> str:
  """E.g. '8 x cpu' or '1 x NVIDIA H100'."""
  return f'{jax.device_count()} x {jax.devices()[0].device_kind}'
