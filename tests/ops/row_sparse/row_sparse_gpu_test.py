import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops import compat
from sparse_interp.ops.gpu_threads import launch
from sparse_interp.ops.row_sparse import (
  row_sparse,
  row_sparse_gpu,
  row_strips,
)
from tests.ops.row_sparse.sparse_matrices import KINDS, check, make, results

SHAPES = [(11, 13, 7), (45, 40, 70), (3, 33, 200)]  # (tokens, inputs, outputs)


def strips_of(matrix, lanes):
  outputs, inputs = np.nonzero(matrix.T)
  start = np.searchsorted(outputs, np.arange(matrix.shape[1] + 1))
  value = jnp.asarray(matrix[inputs, outputs])
  return value, row_strips.make(inputs, start, matrix.shape[0], lanes)


@pytest.mark.parametrize(
  'kind',
  [
    kind if kind in ('random', 'none') else pytest.param(kind, marks=slow)
    for slow in [pytest.mark.slow]
    for kind in KINDS
  ],
)
def test_emulated_kernel_and_gradients_are_those_of_the_matrix(kind):
  x = np.random.default_rng(2).standard_normal((11, 13), np.float32)
  check(x, make(kind, 13, 7), 'gpu_interpreted')


def test_emulated_kernel_has_wide_sums():
  x = np.random.default_rng(3).standard_normal((9, 200), np.float32)
  matrix = make('random', 200, 6)
  check(jnp.asarray(x, jnp.bfloat16), matrix, 'gpu_interpreted', 1 / 128)


@pytest.mark.slow
@pytest.mark.parametrize('variant', row_sparse_gpu.VARIANTS)
@pytest.mark.parametrize('lanes', [4, 2, 1])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', SHAPES)
def test_every_variant_at_odd_shapes(shape, dtype, lanes, variant):
  tokens, inputs, outputs = shape
  matrix = make('random', inputs, outputs)
  x = np.random.default_rng(4).standard_normal((tokens, inputs), np.float32)
  x = jnp.asarray(x, dtype)
  value, strips = strips_of(matrix, lanes)
  y = row_sparse_gpu.product(value, strips, outputs, x, True, variant)
  assert y.dtype == dtype
  assert y.shape == (tokens, outputs)
  wanted = np.asarray(x, np.float32) @ matrix
  tolerance = 1e-5 if dtype == jnp.float32 else 1 / 128
  error = np.abs(np.asarray(y, np.float32) - wanted)
  assert error.max() <= tolerance * max(1, np.abs(wanted).max())


def test_what_no_weight_reads_changes_nothing():
  matrix = make('random', 20, 9)
  matrix[4] = 0
  x = np.ones((3, 20), np.float32)
  x[:, 4] = np.nan
  value, strips = strips_of(matrix, 4)
  y = row_sparse_gpu.product(value, strips, 9, jnp.asarray(x), True, 'warps8')
  np.testing.assert_allclose(y, np.tile(matrix.sum(0), (3, 1)), rtol=1e-5)


@pytest.mark.parametrize('lanes', [4, 2, 1])
@pytest.mark.parametrize('kind', KINDS[:-1])
def test_strips_hold_every_weight_once_and_end(kind, lanes):
  inputs, outputs = 40, 70
  matrix = make(kind, inputs, outputs)
  value, strips = strips_of(matrix, lanes)
  source, word = np.asarray(strips.source), np.asarray(strips.word)
  kept = source[source < value.size]
  assert sorted(kept) == list(range(value.size))
  # Walked as the kernel does it, the steps give the matrix again.
  again = np.zeros((inputs + 1, 128), np.float32)
  step = 0
  for chunk, begin in enumerate(np.asarray(strips.begin[:-1])):
    assert step == begin
    for _ in range(row_strips.ROWS * lanes // 32):
      first = step
      while word[step, 0, 0] < row_strips.LAST:
        step += 1
      step += 1
      output = (word[step - 1, :, 0] >> row_strips.CHANNEL_BITS) & 63
      channel = word[first:step] & (2**row_strips.CHANNEL_BITS - 1)
      place = source[first:step]
      held = np.append(np.asarray(value), 0)[np.minimum(place, value.size)]
      columns = np.broadcast_to(
        chunk * 64 + output[None, :, None], channel.shape
      )
      np.add.at(again, (channel, columns), held)
  assert step == strips.begin[-1] <= len(word) - 2 * lanes
  np.testing.assert_array_equal(again[:inputs, :outputs], matrix)
  assert not again[inputs].any()


def test_lanes_that_read_together_meet_in_few_banks():
  matrix = np.zeros((256, 64), np.float32)
  rng = np.random.default_rng(0)
  for column in matrix.T:
    column[rng.choice(256, 16, replace=False)] = 1
  _, strips = strips_of(matrix, 4)
  channel = np.asarray(strips.word) & 0xFFFF
  pairs = channel.reshape(-1, 4, 2, 4)
  both = (pairs < 256).all(axis=2)
  clash = both & (pairs[:, :, 0] % 2 == pairs[:, :, 1] % 2)
  # A half of them would meet if weights stood in any order.
  assert clash.sum() < 0.2 * both.sum()


@pytest.mark.parametrize('inputs', [1, 2048, 3000, 8192, 11000])
def test_what_is_staged_fits_into_shared_memory(inputs):
  lanes = row_sparse_gpu.lanes_for(inputs)
  staged = (inputs + 1) * 16 * lanes
  used = staged + 8 * row_sparse_gpu._bytes_of_a_warp(lanes)
  assert lanes
  assert used <= launch.SHARED_BYTES < 227 * 1024
  assert not row_sparse_gpu.lanes_for(20000)


@pytest.mark.parametrize('variant', row_sparse_gpu.VARIANTS)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_every_variant_is_lowered_for_cuda(dtype, variant):
  for inputs, lanes in ((40, 4), (4096, 2), (9000, 1)):
    value, strips = strips_of(make('last weight', inputs, 37), lanes)
    x = jax.ShapeDtypeStruct((300, inputs), dtype)

    def product(value, strips, x):
      return row_sparse_gpu.product(value, strips, 37, x, variant=variant)

    text = compat.lower_for('cuda', product, value, strips, x)
    assert text.count('mosaic_gpu_v2') == 1


def test_kernel_and_gradient_are_lowered_for_cuda():
  w = row_sparse.from_dense(make('random', 1100, 37), for_gpu=True)
  x, dy = jnp.zeros((300, 1100)), jnp.zeros((300, 37))
  text = compat.lower_for(
    'cuda', lambda x, w, dy: results(x, w, dy, 'gpu'), x, w, dy
  )
  assert text.count('mosaic_gpu_v2') >= 2  # the product, and dx


def test_reference_is_lowered_for_tpu():
  w = row_sparse.from_dense(make('random', 40, 37))
  x, dy = jnp.zeros((8, 40)), jnp.zeros((8, 37))
  text = compat.lower_for(
    'tpu', lambda x, w, dy: results(x, w, dy, 'reference'), x, w, dy
  )
  assert 'custom_call' not in text


def test_large_products_of_the_reference_hold_the_matrix(monkeypatch):
  from sparse_interp.ops.row_sparse import row_sparse_reference

  monkeypatch.setattr(row_sparse_reference, '_GATHERED', 10)
  results.clear_cache()
  x = np.random.default_rng(2).standard_normal((11, 13), np.float32)
  check(x, make('random', 13, 7), 'reference')
  results.clear_cache()
