"""A small kernel for each back-end runs on a CPU and lowers for its device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from sparse_interp.ops import compat


def tpu_double(x, interpret=False):
  def body(x_ref, y_ref):
    y_ref[...] = 2 * x_ref[...]

  return pl.pallas_call(
    body,
    out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    grid=(x.shape[0] // 8,),
    in_specs=[pl.BlockSpec((8, 128), lambda i: (i, 0))],
    out_specs=pl.BlockSpec((8, 128), lambda i: (i, 0)),
    compiler_params=compat.tpu_params(('parallel',)),
    interpret=interpret,
  )(x)


def gpu_square(x, turn=True, interpret=None):
  """x^T x, or x x, for every (64, 64) tile, by the tensor cores."""
  tiles = x.shape[0]

  def body(x_ref, y_ref, x_smem, y_smem, barrier):
    def tile(i):
      plgpu.copy_gmem_to_smem(x_ref.at[i], x_smem, barrier)
      plgpu.barrier_wait(barrier)

      def product(sums):
        left = compat.transpose_ref(x_smem) if turn else x_smem
        plgpu.wgmma(sums, left, x_smem)
        return sums[...]

      sums = pl.run_scoped(product, plgpu.ACC((64, 64), jnp.float32))
      y_smem[...] = sums.astype(x.dtype)
      plgpu.commit_smem()
      plgpu.copy_smem_to_gmem(y_smem, y_ref.at[i])
      plgpu.wait_smem_to_gmem(0)

    step = lax.axis_size('sm')
    start = lax.axis_index('sm')
    lax.fori_loop(
      0, pl.cdiv(tiles - start, step), lambda n, _: tile(start + n * step), None
    )

  return compat.gpu_kernel(
    body,
    out_type=jax.ShapeDtypeStruct(x.shape, x.dtype),
    scratch_types=(
      plgpu.SMEM((64, 64), x.dtype),
      plgpu.SMEM((64, 64), x.dtype),
      plgpu.Barrier(),
    ),
    grid=(2,),
    grid_names=('sm',),
    interpret=interpret,
  )(x)


@pytest.mark.parametrize('checked', [False, True])
def test_a_tpu_kernel_is_interpreted(checked):
  x = np.arange(2048, dtype=np.float32).reshape(16, 128)
  y = tpu_double(jnp.asarray(x), compat.tpu_interpreter(checked))
  np.testing.assert_array_equal(y, 2 * x)


def test_a_tpu_kernel_is_lowered():
  x = jax.ShapeDtypeStruct((16, 128), jnp.float32)
  assert 'tpu_custom_call' in compat.lower_for('tpu', tpu_double, x)


def test_a_gpu_kernel_is_interpreted():
  turn = compat.GPU_INTERPRETER_TRANSPOSES
  x = np.random.default_rng(0).integers(-3, 4, (3, 64, 64))
  y = gpu_square(jnp.asarray(x, jnp.bfloat16), turn, compat.gpu_interpreter())
  square = np.einsum('ikm,ikn->imn' if turn else 'imk,ikn->imn', x, x)
  np.testing.assert_array_equal(y, jnp.asarray(square, jnp.bfloat16))


def test_a_gpu_kernel_is_lowered():
  x = jax.ShapeDtypeStruct((3, 64, 64), jnp.bfloat16)
  assert 'mosaic_gpu_v2' in compat.lower_for('cuda', gpu_square, x)
