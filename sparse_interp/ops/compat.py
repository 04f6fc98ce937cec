"""Pallas as published in jax 0.10 and 0.11, under names that do not change.

Kernels take from here whatever differs between the two, or is declared
unstable: how a kernel is entered, compiled, interpreted on a CPU, and lowered
for a device that is not at hand. All else they import from
`jax.experimental.pallas` directly.

Source: the change logs and sources of jax 0.10.2 and 0.11.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import export
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas import tpu as pltpu

from sparse_interp.ops import machine

# InterpretGPUParams became public in 0.11.
if hasattr(plgpu, 'InterpretGPUParams'):
  _InterpretGPUParams = plgpu.InterpretGPUParams
else:
  from jax._src.pallas.mosaic_gpu.interpret.params import (
    InterpretGPUParams as _InterpretGPUParams,
  )

_VERSION = jax.__version_info__[:2]

# Whether the interpreter of 0.10 knows a transposed operand of a product.
GPU_INTERPRETER_TRANSPOSES = _VERSION >= (0, 11)

# The custom calls that carry kernels, as `jax.export` knows them.
_KERNEL_CALLS = ('mosaic_gpu_v2', 'tpu_custom_call')


def tpu_params(
  dimension_semantics: Sequence[str], **fields: Any
) -> pltpu.CompilerParams:
  """Compiler parameters of a Mosaic TPU kernel.

  Args:
    dimension_semantics: 'parallel' or 'arbitrary' for each grid dimension.
    **fields: other fields of `pltpu.CompilerParams`.
  """
  return pltpu.CompilerParams(
    dimension_semantics=tuple(dimension_semantics), **fields
  )


def tpu_interpreter(checked: bool = True) -> Any:
  """What `pl.pallas_call(interpret=...)` takes to run a TPU kernel on a CPU.

  Args:
    checked: simulate memory: buffers start as NaN, reads out of bounds raise,
      races are detected. Otherwise the quick interpreter, which emulates the
      grid only.
  """
  if not checked:
    return True
  return pltpu.InterpretParams(
    detect_races=True,
    out_of_bounds_reads='raise',
    uninitialized_memory='nan',
  )


def gpu_params(**fields: Any) -> plgpu.CompilerParams:
  """Compiler parameters of a Mosaic GPU kernel.

  Lowering is that of warpgroups, which 0.11 made the default: layouts and
  swizzles are inferred.
  """
  fields.setdefault('lowering_semantics', plgpu.LoweringSemantics.Warpgroup)
  return plgpu.CompilerParams(**fields)


def gpu_interpreter() -> Any:
  """What `gpu_kernel(interpret=...)` takes to run on a CPU.

  Memory starts as NaN and reads out of bounds raise.
  """
  return _InterpretGPUParams(
    out_of_bounds_reads='raise', uninitialized_memory='nan'
  )


def gpu_kernel(
  body: Callable[..., None],
  *,
  out_type: Any,
  grid: Sequence[int],
  grid_names: Sequence[str],
  scratch_types: Sequence[Any] | Mapping[str, Any] = (),
  num_threads: int | None = None,
  thread_name: str | None = None,
  params: plgpu.CompilerParams | None = None,
  interpret: Any = None,
) -> Callable[..., Any]:
  """Enters a Mosaic GPU kernel.

  Args:
    body: takes references to inputs, outputs and scratch memory.
    out_type: tree of `jax.ShapeDtypeStruct`.
    grid: thread blocks along each axis.
    grid_names: a name for each axis, for `lax.axis_index`.
    scratch_types: scratch memory by position or by name.
    num_threads: warpgroups per block; None for one.
    thread_name: axis name of warpgroups.
    params: see `gpu_params`, the default.
    interpret: None for the device, or `gpu_interpreter()`.

  Returns:
    A function from the input arrays to the output arrays.
  """
  return plgpu.kernel(
    body,
    out_type=out_type,
    scratch_types=scratch_types,
    compiler_params=gpu_params() if params is None else params,
    grid=tuple(grid),
    grid_names=tuple(grid_names),
    num_threads=num_threads,
    thread_name=thread_name,
    interpret=interpret,
  )


def transpose_ref(ref: Any, permutation: Sequence[int] = (1, 0)) -> Any:
  """A transposed view of a reference inside a Mosaic GPU kernel."""
  if _VERSION >= (0, 11):
    return ref.transpose(tuple(permutation))
  return plgpu.transpose_ref(ref, tuple(permutation))


def lower_for(
  platform: str, function: Callable[..., Any], *arguments: Any
) -> str:
  """Compiles a function for a platform that need not be at hand.

  Args:
    platform: 'tpu', 'cuda' or 'cpu'.
    function: jax function; kernels in it must not be interpreted.
    *arguments: arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    The module's text. A kernel appears as a custom call: 'tpu_custom_call' or
    'mosaic_gpu_v2'.
  """
  checks = [export.DisabledSafetyCheck.custom_call(c) for c in _KERNEL_CALLS]
  exported = export.export(
    jax.jit(function), platforms=[platform], disabled_checks=checks
  )(*arguments)
  return exported.mlir_module()


def persistent_grid(tiles: int) -> tuple[int]:
  """One block per multiprocessor, but not more than there are tiles."""
  return (min(machine.multiprocessors(), max(tiles, 1)),)
