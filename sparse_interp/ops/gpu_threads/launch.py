"""Runs a program of single threads, on a GPU or emulated."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from sparse_interp.ops import compat
from sparse_interp.ops.gpu_threads import emulated

# Warps that are compiled together, and that most kernels take as a block.
WARPGROUP = 4

# Shared memory of a block of a Hopper GPU, less what is kept for the compiler.
SHARED_BYTES = 226 * 1024


def run(
  program: Callable[..., None],
  inputs: Sequence[Array],
  out_types: Sequence[jax.ShapeDtypeStruct],
  blocks: int,
  warps: int = WARPGROUP,
  shared: Sequence[tuple[int, Any]] = (),
  interpret: bool = False,
) -> tuple[Array, ...]:
  """Starts blocks of threads, each of which runs the program.

  Args:
    program: takes the operations of a thread (`emulated.Threads`), then memory:
      inputs, outputs, shared. No thread may write to an input.
    inputs: arrays of any shape; the program sees them flat.
    out_types: shapes and dtypes of the results; all entries must be written.
    blocks: number of blocks; they run in any order.
    warps: of a block; a multiple of WARPGROUP.
    shared: (entries, dtype) of each array that a block shares.
    interpret: emulate on a CPU, memory checked.
  """
  if interpret:
    emulate = functools.partial(
      _emulate, program, out_types, blocks, warps, shared
    )
    return jax.pure_callback(emulate, tuple(out_types), *inputs)
  groups = warps // WARPGROUP
  kernel = compat.gpu_kernel(
    functools.partial(_kernel, program),
    out_type=tuple(out_types),
    grid=(blocks,),
    grid_names=('block',),
    scratch_types=[plgpu.SMEM((size,), dtype) for size, dtype in shared],
    num_threads=groups if groups > 1 else None,
    thread_name='warpgroup' if groups > 1 else None,
    params=compat.gpu_params(lowering_semantics=plgpu.LoweringSemantics.Lane),
  )
  return kernel(*inputs)


def _kernel(program, *refs):
  splat = plgpu.Layout.WG_SPLAT

  @plgpu.inline_mgpu(arg_types=(splat, *[plgpu.RefType() for _ in refs]))
  def threads(context, block, *refs):
    # Here, since it needs the parts of jax that compile for a GPU.
    from sparse_interp.ops.gpu_threads import emitted

    del context
    program(emitted.Threads(block.registers.item()), *map(emitted.Memory, refs))

  threads(jnp.int32(lax.axis_index('block')), *refs)


def _emulate(program, out_types, blocks, warps, shared, *inputs):
  read = [emulated.Memory(np.array(a)) for a in inputs]
  results = [
    emulated.Memory(None, int(np.prod(t.shape)), np.dtype(t.dtype))
    for t in out_types
  ]
  for block in range(blocks):
    of_block = [
      emulated.Memory(None, n, np.dtype(dtype)) for n, dtype in shared
    ]
    threads = emulated.Threads(32 * warps, block)
    program(threads, *read, *results, *of_block)
  return tuple(
    memory.array.reshape(t.shape)
    for memory, t in zip(results, out_types, strict=True)
  )
