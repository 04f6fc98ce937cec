"""A model of blocks computes what a dense one does, and counts its blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.products import Products
from sparse_interp.models.sites import edge_matrices

SIDE = 16
CONFIG = GPTConfig(
  vocab_size=40, n_layer=1, d_model=32, d_head=8, context_length=8
)
TOKENS = jnp.arange(16).reshape(2, 8)


def params_of_blocks(density):
  """Random parameters; matrices of layers keep the same share of blocks."""
  rng = np.random.default_rng(0)
  params = jax.jit(GPT(CONFIG).init)(jax.random.key(0), TOKENS)['params']

  def thin(path, leaf):
    if path[0].key == 'lm_head' or path[-1].key != 'kernel':
      return leaf
    grid = [side // SIDE for side in leaf.shape]
    count = int(density * np.prod(grid))
    kept = rng.permutation(np.arange(np.prod(grid)) < count).reshape(grid)
    # Loud, so that a block that is left out shows.
    return 5 * leaf * kept.repeat(SIDE, 0).repeat(SIDE, 1)

  return jax.tree_util.tree_map_with_path(thin, params)


def loss(model, params):
  logits, _ = model.apply({'params': params}, TOKENS)
  return jnp.square(logits).mean()


@pytest.mark.slow
@pytest.mark.parametrize('density', [0.25, 0.75])
def test_logits_and_gradients_are_those_of_dense_products(density):
  params = params_of_blocks(density)
  of_blocks, dense = GPT(CONFIG, Products(SIDE)), GPT(CONFIG)
  found, wanted = (
    jax.jit(jax.value_and_grad(lambda p, m=model: loss(m, p)))(params)
    for model in (of_blocks, dense)
  )
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    scale = max(1e-3, float(np.abs(other).max()))
    np.testing.assert_allclose(one, other, atol=1e-5 * scale)


@pytest.mark.slow
def test_the_share_of_blocks_that_are_not_zero_is_reported():
  params = params_of_blocks(0.25)
  run = jax.jit(
    lambda p: GPT(CONFIG, Products(SIDE)).apply(
      {'params': p}, TOKENS, mutable=['occupancy']
    )
  )
  _, seen = run(params)
  paths = {m.path[:-1] for m in edge_matrices(CONFIG)}
  assert len(paths) == 4
  for layer, block, matrix in paths:
    (share,) = seen['occupancy'][layer][block][f'{matrix}_blocks']
    assert share == 0.25


def test_blocks_are_skipped_only_if_asked():
  params = params_of_blocks(0.25)
  texts = [
    jax.jit(lambda p, m=model: m.apply({'params': p}, TOKENS)[0])
    .lower(params)
    .as_text()
    for model in (GPT(CONFIG, Products(SIDE)), GPT(CONFIG))
  ]
  branches = [text.count('stablehlo.case') for text in texts]
  assert branches == [branches[1] + 4, branches[1]]
