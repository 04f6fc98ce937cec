"""All products with block-sparse matrices against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops import compat
from sparse_interp.ops.block_sparse import (
  block_sparse,
  block_sparse_matmul,
  block_sparse_tpu,
)
from sparse_interp.ops.block_sparse.block_sparse_matmul import IMPLEMENTATIONS

# The size of blocks and the dtypes that an implementation is tried with; for
# kernels both that they take.
PLAIN = ('reference', 'cpu')
SIZES = dict.fromkeys(PLAIN, 16) | {
  'tpu_interpreted': 128,
  'gpu_interpreted': 64,
}
F32, BF16 = jnp.float32, jnp.bfloat16
# Rows of activations, and what is cut off the last row and column of blocks.
LAYOUTS = {
  'empty rows and columns': (np.array([[1, 0, 1], [0, 0, 0]]), 21, (5, 3)),
  'one block': (np.array([[1]]), 16, (0, 0)),
  'all blocks': (np.array([[1, 1], [1, 1]]), 33, (0, 0)),
  'no block': (np.array([[0, 0]]), 3, (0, 1)),
}


def problem(kept, rows, cut, size, dtype, spare=2):
  """x, W, the block-sparse W, the marks of its entries, and dy."""
  shape = tuple(n * size - c for n, c in zip(kept.shape, cut, strict=True))
  rng = np.random.default_rng(rows)
  entries = np.repeat(np.repeat(kept, size, 0), size, 1)
  entries = entries[: shape[0], : shape[1]]
  matrix = jnp.asarray(rng.standard_normal(shape) * entries, dtype)
  x = jnp.asarray(rng.standard_normal((rows, shape[0])), dtype)
  dy = jnp.asarray(rng.standard_normal((rows, shape[1])), dtype)
  w = block_sparse.from_dense(
    matrix, size, int(kept.sum()) + spare, jnp.asarray(kept, bool)
  )
  return x, matrix, w, entries, dy


def value_and_gradients(x, w, dy, implementation):
  """y, dx and dW as a matrix, by the public function alone."""

  @jax.jit
  def run(x, w, dy):
    def multiply(x, blocks):
      return block_sparse_matmul.block_sparse_matmul(
        x, w.replace(blocks), implementation
      )

    y, pull = jax.vjp(multiply, x, w.blocks)
    dx, dblocks = pull(dy)
    return y, dx, w.replace(dblocks)

  y, dx, dw = run(x, w, dy)
  return y, dx, block_sparse.to_dense(dw), dw.blocks[int(w.count) :]


def assert_close(found, wanted, dtype):
  assert found.dtype == dtype
  # Sums are in float32 everywhere; what is left is the last rounding.
  relative = 2**-7 if dtype == BF16 else 1e-5
  scale = max(1.0, float(np.abs(wanted).max(initial=0)))
  np.testing.assert_allclose(
    np.asarray(found, np.float64), wanted, rtol=relative, atol=1e-5 * scale
  )


def assert_right(implementation, layout, dtype, size=None):
  size = SIZES[implementation] if size is None else size
  x, matrix, w, entries, dy = problem(*LAYOUTS[layout], size, dtype)
  y, dx, dw, rest = value_and_gradients(x, w, dy, implementation)
  wide = [np.asarray(a, np.float64) for a in (x, matrix, dy)]
  assert_close(y, wide[0] @ wide[1], dtype)
  assert_close(dx, wide[2] @ wide[1].T, dtype)
  assert_close(dw, wide[0].T @ wide[2] * entries, dtype)
  assert not np.any(rest)


@pytest.mark.parametrize(
  'dtype',
  [F32, pytest.param(BF16, marks=pytest.mark.slow)],
  ids=['f32', 'bf16'],
)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('implementation', PLAIN)
def test_plain_jax_is_right(implementation, layout, dtype):
  assert_right(implementation, layout, dtype)


@pytest.mark.slow
@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_tpu_kernels_are_right(layout):
  assert_right('tpu_interpreted', layout, F32)


def test_the_tpu_kernels_are_right_in_16_bits():
  assert_right('tpu_interpreted', 'empty rows and columns', BF16)


# Here memory starts as NaN: an output that no visit writes stays NaN.
@pytest.mark.slow
@pytest.mark.parametrize('layout', ['empty rows and columns', 'no block'])
def test_the_tpu_kernels_touch_only_what_they_may(layout, monkeypatch):
  checked = compat.tpu_interpreter(checked=True)
  monkeypatch.setattr(compat, 'tpu_interpreter', lambda **_: checked)
  assert_right('tpu_interpreted', layout, F32)


def test_a_slot_without_a_block_gets_zeros_from_within_memory_on_a_tpu():
  place, ones = jnp.zeros(2, jnp.int32), jnp.ones((16, 128))
  found = block_sparse_tpu.sampled(
    *(ones, ones, place, place, jnp.int32(1), 128),
    interpret=compat.tpu_interpreter(checked=True),
  )
  np.testing.assert_array_equal(found[0], np.full((128, 128), 16))
  assert not np.any(found[1])


@pytest.mark.slow
def test_several_tiles_of_rows_are_right_on_a_tpu(monkeypatch):
  monkeypatch.setattr(block_sparse_tpu, 'ROWS', 16)
  assert_right('tpu_interpreted', 'all blocks', F32)


# Memory of the interpreted GPU starts as NaN, too.
@pytest.mark.slow
@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_gpu_kernels_are_right(layout):
  assert_right('gpu_interpreted', layout, BF16)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [BF16, jnp.float16], ids=['bf16', 'f16'])
def test_the_gpu_kernels_are_right_with_large_blocks(dtype):
  x, matrix, w, _, _ = problem(
    np.array([[1, 0], [1, 1]]), 130, (7, 9), 128, F32
  )
  x, matrix = x.astype(dtype), matrix.astype(dtype)
  y = block_sparse_matmul.block_sparse_matmul(
    x, w.replace(w.blocks.astype(dtype)), 'gpu_interpreted'
  )
  wanted = np.asarray(x, np.float64) @ np.asarray(matrix, np.float64)
  np.testing.assert_allclose(
    np.asarray(y, np.float64), wanted, rtol=2**-7, atol=1e-2
  )


def forward_and_backward(implementation):
  def run(x, w, dy):
    def multiply(x, blocks):
      return block_sparse_matmul.block_sparse_matmul(
        x, w.replace(blocks), implementation
      )

    return jax.vjp(multiply, x, w.blocks)[1](dy)

  return run


@pytest.mark.slow
@pytest.mark.parametrize(
  ('implementation', 'platform', 'size', 'dtype', 'call'),
  [
    ('tpu', 'tpu', 128, F32, 'tpu_custom_call'),
    ('tpu', 'tpu', 256, BF16, 'tpu_custom_call'),
    ('gpu', 'cuda', 64, BF16, 'mosaic_gpu_v2'),
    ('gpu', 'cuda', 128, BF16, 'mosaic_gpu_v2'),
    ('gpu', 'cuda', 128, jnp.float16, 'mosaic_gpu_v2'),
  ],
)
def test_kernels_are_lowered_for_their_device(
  implementation, platform, size, dtype, call
):
  kept = np.array([[1, 0, 1], [0, 1, 0]])
  x, _, w, _, dy = problem(kept, 300, (1, 2), size, dtype)
  run = forward_and_backward(implementation)
  text = compat.lower_for(platform, run, x, w, dy)
  # The forward product is not needed for gradients: dx and dW are left.
  assert text.count(f'@{call}') >= 2
  text = compat.lower_for(
    platform,
    lambda x, w: block_sparse_matmul.block_sparse_matmul(x, w, implementation),
    x,
    w,
  )
  assert text.count(f'@{call}') == 1


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_plain_jax_is_lowered_for_accelerators(platform):
  x, _, w, _, dy = problem(np.array([[1, 0]]), 8, (0, 0), 16, F32)
  run = forward_and_backward('reference')
  assert 'dot_general' in compat.lower_for(platform, run, x, w, dy)


@pytest.mark.slow
def test_batches_of_any_shape_and_none_are_multiplied():
  x, matrix, w, _, _ = problem(np.array([[1, 0], [1, 1]]), 6, (1, 1), 16, F32)
  multiply = block_sparse_matmul.block_sparse_matmul
  y = multiply(x.reshape(2, 3, -1), w)
  np.testing.assert_allclose(
    y.reshape(6, -1), np.asarray(x) @ np.asarray(matrix), atol=1e-4
  )
  for name in ('cpu', 'tpu_interpreted'):
    _, _, w, _, _ = problem(np.array([[1]]), 1, (0, 0), SIZES[name], F32)
    empty = multiply(jnp.zeros((0, w.shape[0])), w, name)
    assert empty.shape == (0, w.shape[1])


def test_mixed_dtypes_are_promoted_and_gradients_keep_theirs():
  x, _, w, _, _ = problem(np.array([[1]]), 4, (0, 0), 16, F32)
  x = x.astype(BF16)

  def total(x, blocks):
    return block_sparse_matmul.block_sparse_matmul(x, w.replace(blocks)).sum()

  assert total(x, w.blocks).dtype == F32
  dx, dblocks = jax.grad(total, argnums=(0, 1))(x, w.blocks)
  assert (dx.dtype, dblocks.dtype) == (BF16, F32)


def test_a_cpu_takes_plain_jax():
  assert block_sparse_matmul.choose_for_blocks('auto', 64, F32) == 'cpu'


@pytest.mark.parametrize(
  ('implementation', 'size', 'dtype', 'named'),
  [
    ('fast', 16, F32, 'implementation'),
    ('tpu', 64, F32, 'size'),
    ('gpu', 64, F32, 'dtype'),
    ('gpu', 32, BF16, 'size'),
  ],
)
def test_what_no_kernel_takes_is_refused(implementation, size, dtype, named):
  x, _, w, _, _ = problem(np.array([[1]]), 4, (0, 0), size, dtype)
  with pytest.raises(ValueError, match=named) as error:
    block_sparse_matmul.block_sparse_matmul(x, w, implementation)
  assert '\n' not in str(error.value)


def test_widths_that_differ_are_refused():
  x, _, w, _, _ = problem(np.array([[1]]), 4, (0, 0), 16, F32)
  with pytest.raises(ValueError, match=r'\(\.\.\., 16\)'):
    block_sparse_matmul.block_sparse_matmul(x[:, :9], w)


def test_every_implementation_has_a_test():
  assert set(SIZES) | {'tpu', 'gpu'} == set(IMPLEMENTATIONS)
