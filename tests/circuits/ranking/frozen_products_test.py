"""Pruning on the nonzero weights alone is pruning."""

import jax
import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import ablation, gated_model, task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import pruning
from sparse_interp.models.means import site_means
from sparse_interp.models.sites import edge_matrices


def _both(known, kind='mean'):
  """The known model with dense products, and with sparse ones."""
  return [
    gated_model.make(known.config, known.params, known.means, kind, products)
    for products in ('dense', 'row_sparse')
  ]


def _gates(model, kind, seed=0):
  rng = np.random.default_rng(seed)
  sizes = units_lib.make(model, kind).sizes
  by_key = {key: np.float32(rng.random(n)) for key, n in sizes.items()}
  return units_lib.unfold(model, by_key)


def test_every_matrix_has_its_weights_in_the_frozen_kernel(known):
  model = _both(known)[1]
  for matrix in edge_matrices(known.config):
    rows, columns = model.edges[matrix.name]
    kernel = model.frozen
    for key in matrix.path:
      kernel = kernel[key]
    np.testing.assert_array_equal(
      kernel.value[model.slots[matrix.name]],
      matrix.block(known.params)[rows, columns],
    )


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['nodes', 'edges'])
@pytest.mark.parametrize('removed', ['mean', 'counterfactual'])
def test_answers_and_slopes_of_gates_are_those_of_dense_products(
  known, kind, removed
):
  pairs = task_loss.make_pairs(known.train).take(np.arange(8))
  found = []
  for model in _both(known, removed):
    gates = _gates(model, kind)
    key = jax.random.key(0)
    answers = jax.jit(gated_model.outputs)(model, gates, pairs, key)
    found.append((answers, gated_model.gate_slopes(model, gates, pairs)))
  assert found[0][1].keys() == found[1][1].keys()
  assert any(
    np.abs(slope).max(initial=0) > 1e-3 for slope in found[0][1].values()
  )
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5),
    *found,
  )


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['nodes', 'edges'])
def test_gates_learned_alone_and_together_are_those_of_dense_products(
  known, kind
):
  config = PruneConfig(gates=kind, steps=4, batch_pairs=8, init_attribution=0.0)
  pairs = task_loss.make_pairs(known.train)
  dense, sparse = (units_lib.make(model, kind) for model in _both(known))
  wanted = [pruning.optimize(dense, pairs, config, seed) for seed in (0, 1)]
  jobs = [(pairs, config, seed) for seed in (0, 1)]
  together = pruning.optimize_together(sparse, jobs)
  alone = pruning.optimize(sparse, pairs, config, 0)
  for one, other in zip([*together, alone], [*wanted, wanted[0]], strict=True):
    for key in dense.sizes:
      np.testing.assert_allclose(one.tau[key], other.tau[key], atol=1e-4)


def test_means_are_those_of_dense_products(known, monkeypatch):
  tokens = np.arange(16).reshape(2, 8) % known.config.vocab_size
  wanted = site_means(known.config, known.params, [tokens])
  # A model this narrow is run densely otherwise.
  freeze = ablation.frozen.freeze
  monkeypatch.setattr(
    ablation.frozen, 'freeze', lambda c, p: freeze(c, p, 'row_sparse')
  )
  found = site_means(known.config, known.params, [tokens])
  for site, mean in wanted.items():
    np.testing.assert_allclose(found[site], mean, atol=1e-5)


def test_products_are_named_in_the_hyper_parameters():
  with pytest.raises(ValueError) as error:
    PruneConfig(products='csr')
  assert 'products must be one of auto, dense, row_s' in str(error.value)
