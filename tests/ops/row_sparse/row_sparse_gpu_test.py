import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops import compat
from sparse_interp.ops.row_sparse import row_sparse, row_sparse_gpu
from tests.ops.row_sparse.sparse_matrices import KINDS, check, make, results


@pytest.fixture
def small_blocks(monkeypatch):
  """Several blocks and stages from small arrays: the interpreter is slow."""
  monkeypatch.setattr(row_sparse_gpu, '_CHANNELS', 4)
  monkeypatch.setattr(row_sparse_gpu, '_TOKENS', 8)
  monkeypatch.setattr(row_sparse_gpu, '_STAGED_BYTES', 8 * 4 * 5)
  results.clear_cache()
  yield
  results.clear_cache()


@pytest.mark.slow
@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize(
  'kind',
  KINDS,
)
def test_interpreted_kernel_and_gradients_are_those_of_the_matrix(kind):
  # 13 inputs in stages of 5, 7 outputs in blocks of 4, 11 tokens in blocks of
  # 8. Memory starts as NaN: what is not written shows.
  x = np.random.default_rng(2).standard_normal((11, 13), np.float32)
  check(x, make(kind, 13, 7), 'gpu_interpreted')


@pytest.mark.slow
@pytest.mark.usefixtures('small_blocks')
def test_interpreted_kernel_has_wide_sums():
  x = np.random.default_rng(3).standard_normal((9, 23), np.float32)
  matrix = make('random', 23, 5)
  check(jnp.asarray(x, jnp.bfloat16), matrix, 'gpu_interpreted', 1 / 128)


def test_what_is_staged_and_summed_fits_into_shared_memory():
  tokens, channels = row_sparse_gpu._TOKENS, row_sparse_gpu._CHANNELS
  sums = channels * tokens * (4 + 4)
  assert row_sparse_gpu._STAGED_BYTES + sums < 227 * 1024


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('inputs', [40, 1100])
def test_kernel_and_gradient_are_lowered_for_cuda(dtype, inputs):
  w = row_sparse.from_dense(make('random', inputs, 37))
  x, dy = jnp.zeros((300, inputs), dtype), jnp.zeros((300, 37), dtype)
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
