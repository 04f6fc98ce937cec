"""A model that skips zeros computes what one does that multiplies all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.products import DENSE, Products
from sparse_interp.ops.topk import topk

CONFIG = GPTConfig(
  vocab_size=40, n_layer=1, d_model=32, d_head=8, context_length=8
)
TOKENS = jnp.arange(16).reshape(2, 8)


def sparse_params(density):
  params = GPT(CONFIG).init(jax.random.key(0), TOKENS)['params']

  def thin(path, leaf):
    if path[-1].key != 'kernel':
      return leaf
    # Loud, so that a weight that is left out shows.
    return 5 * leaf * topk.keep_mask(leaf, int(density * leaf.size))

  return jax.tree_util.tree_map_with_path(thin, params)


def value_and_gradient(params, products):
  def loss(params):
    logits, _ = GPT(CONFIG, products).apply({'params': params}, TOKENS)
    return jnp.square(logits).mean()

  return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.slow
@pytest.mark.parametrize('kept', [False, True])
@pytest.mark.parametrize('density', [1 / 10, 1 / 3])  # lists; too many for them
def test_loss_and_gradients_are_those_of_dense_products(density, kept):
  params = sparse_params(density)
  products = Products(skip_zeros=True, kept_gradient=kept)
  found = value_and_gradient(params, products)
  wanted = value_and_gradient(params, DENSE)
  np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)

  def compare(path, one, other, weight):
    if kept and path[0].key != 'lm_head' and path[-1].key == 'kernel':
      other = jnp.where(weight != 0, other, 0)
    scale = max(1e-3, float(np.abs(other).max()))
    np.testing.assert_allclose(one, other, atol=1e-5 * scale)

  jax.tree_util.tree_map_with_path(compare, found[1], wanted[1], params)


@pytest.mark.slow
def test_the_layers_multiply_by_lists_if_asked():
  params = sparse_params(1 / 10)

  def products_in(products):
    run = jax.jit(lambda p: GPT(CONFIG, products).apply({'params': p}, TOKENS))
    return run.lower(params).as_text().count('row_sparse_product')

  assert products_in(DENSE) == 0
  # c_attn, c_proj, c_fc, c_proj.
  assert products_in(Products(skip_zeros=True)) >= 1
