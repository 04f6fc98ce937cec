"""How a function of jax, numpy or torch takes part in a case.

torch and scipy take part where they can be imported, and are never needed.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.benchmarks.case import AbsentError, Competitor, Inputs


def by_jax(
  function: Callable[..., Any], *names: str, dtype: str | None = None
) -> Competitor:
  """A function of arrays, jitted.

  Args:
    function: takes the named inputs.
    *names: of inputs; floats among them get `dtype`.
    dtype: None leaves floats as they are.
  """

  def prepare(inputs: Inputs):
    jitted = jax.jit(function)
    arrays = [to_device(inputs[name], dtype) for name in names]
    return lambda: jitted(*arrays)

  return Competitor(prepare, jax.block_until_ready, jax.device_get)


def to_device(value: Any, dtype: str | None) -> Any:
  """Arrays of a tree on the device, its floats in `dtype`."""

  def put(leaf):
    leaf = jnp.asarray(leaf)
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(dtype) if dtype and floating else leaf

  return jax.block_until_ready(jax.tree.map(put, value))


def product(a: Any, b: Any) -> Any:
  """Reference of a product: numpy's, or the device's own in full float32.

  Numpy would take longer than all that is timed at the sizes of a GPU.
  """
  if jax.default_backend() == 'cpu':
    return a @ b
  return jax.device_get(jnp.matmul(a, b, precision='highest'))


def by_numpy(prepare: Callable[[Inputs], Any]) -> Competitor:
  """A function on the host; absent where jax computes elsewhere."""

  def checked(inputs: Inputs):
    if jax.default_backend() != 'cpu':
      raise AbsentError('computes on the host')
    return prepare(inputs)

  return Competitor(checked, lambda result: result, lambda result: result)


def module(name: str) -> Any:
  """Imports what is not required.

  Raises:
    AbsentError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise AbsentError(f'{name} is not installed') from error


def torch_device() -> str:
  """The torch device that matches the one of jax.

  Raises:
    AbsentError: torch is not installed, or has no such device.
  """
  torch = module('torch')
  if jax.default_backend() == 'cpu':
    return 'cpu'
  if not torch.cuda.is_available():
    raise AbsentError('torch has no such device')
  return 'cuda'


def by_torch(
  prepare: Callable[[Any, dict[str, Any]], Any], dtype: str = 'float32'
) -> Competitor:
  """A function of torch tensors.

  Args:
    prepare: takes the torch module and the inputs as tensors; returns what is
      timed.
    dtype: of floating inputs.
  """

  def ready(inputs: Inputs):
    torch, device = module('torch'), torch_device()

    def tensor(value):
      made = torch.as_tensor(np.array(value), device=device)
      return (
        made.to(getattr(torch, dtype)) if made.is_floating_point() else made
      )

    arrays = {
      name: tensor(value)
      for name, value in inputs.items()
      if isinstance(value, np.ndarray)
    }
    try:
      return prepare(torch, arrays)
    except (RuntimeError, NotImplementedError, ImportError) as error:
      raise AbsentError(str(error).strip().splitlines()[0]) from error

  def wait(result):
    if torch_device() == 'cuda':
      module('torch').cuda.synchronize()
    return result

  def to_numpy(result):
    if isinstance(result, tuple | list):
      return [to_numpy(part) for part in result]
    result = result.detach().cpu()
    return (result.float() if result.is_floating_point() else result).numpy()

  return Competitor(ready, wait, to_numpy)
