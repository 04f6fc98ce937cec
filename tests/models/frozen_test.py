"""Frozen models answer as before, from what is not zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPT, GPTConfig, frozen
from sparse_interp.ops.row_sparse.row_sparse import RowSparse

TOKENS = np.arange(12).reshape(2, 6) % 9


def make(density, **switches):
  config = GPTConfig(
    **{
      'vocab_size': 9,
      'n_layer': 2,
      'd_model': 16,
      'd_head': 4,
      'context_length': 6,
      'activation_density': 0.5,
      **switches,
    }
  )
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), TOKENS)
  rng = np.random.default_rng(0)

  def draw(x):
    kept = rng.random(x.shape) < (density if len(x.shape) == 2 else 1)
    return jnp.asarray(rng.normal(0, 1, x.shape) * kept, jnp.float32)

  return config, jax.tree.map(draw, shapes['params'])


def sparse_kernels(config, params):
  paths = frozen.kernel_paths(config)
  return [p for p in paths if isinstance(frozen.at(params, p), RowSparse)]


@pytest.mark.parametrize(
  'switches',
  [
    {'position': 'concat', 'd_position': 3, 'sink': True},
    pytest.param({'use_bias': False}, marks=pytest.mark.slow),
    pytest.param({'tied_unembed': True}, marks=pytest.mark.slow),
  ],
)
def test_every_activation_is_that_of_the_dense_model(switches):
  config, params = make(0.2, **switches)
  running = frozen.freeze(config, params, 'row_sparse')
  assert len(sparse_kernels(config, running)) == 9 - config.tied_unembed
  assert not sparse_kernels(config, params)
  run = jax.jit(GPT(config).apply)
  wanted, found = (run({'params': p}, TOKENS) for p in (params, running))
  assert jax.tree.structure(wanted) == jax.tree.structure(found)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    assert one.dtype == other.dtype
    scale = max(1, np.abs(other).max())
    np.testing.assert_allclose(one, other, atol=1e-5 * scale)


def test_only_sparse_and_wide_kernels_are_replaced_unless_asked():
  config, params = make(1 / 100, d_model=512, n_layer=1)
  every = frozen.kernel_paths(config)
  wide = every[:-1]  # the unembedding has 9 columns
  assert sparse_kernels(config, frozen.freeze(config, params)) == wide
  dense = frozen.replace(params, wide[2], jnp.ones((512, 2048)))
  left = [*wide[:2], *wide[3:]]
  assert sparse_kernels(config, frozen.freeze(config, dense)) == left
  assert frozen.freeze(config, params, 'dense') is params
  narrow, few = make(1 / 100, n_layer=1)
  assert not sparse_kernels(narrow, frozen.freeze(narrow, few))
  half, weights = make(1 / 100, d_model=512, n_layer=1, dtype='bfloat16')
  assert not sparse_kernels(half, frozen.freeze(half, weights))
  again = frozen.freeze(config, frozen.freeze(config, params), 'row_sparse')
  assert sparse_kernels(config, again) == every


def test_what_is_frozen_takes_no_product_with_the_whole_matrix():
  config, params = make(1 / 100, d_model=512, n_layer=1)
  run = jax.jit(GPT(config).apply)
  texts = [
    run.lower({'params': frozen.freeze(config, params, p)}, TOKENS)
    .compile()
    .as_text()
    for p in ('auto', 'dense')
  ]
  assert ['512,2048' in text for text in texts] == [False, True]


def test_an_unknown_way_to_multiply_is_refused():
  config, params = make(0.2)
  with pytest.raises(ValueError) as error:
    frozen.freeze(config, params, 'csr')
  assert 'products must be one of auto, dense, row_sparse' in str(error.value)
