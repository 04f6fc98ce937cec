"""Means of removed nodes."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import ablation
from sparse_interp.models import GPT


def test_means_pool_batches_of_unequal_size_over_all_positions(known):
  rng = np.random.default_rng(0)
  batches = [rng.integers(0, 12, (n, 8)) for n in (2, 5)]
  means = ablation.site_means(known.config, known.params, batches)
  _, recorded = GPT(known.config).apply(
    {'params': known.params}, jnp.asarray(np.concatenate(batches))
  )
  assert list(means) == list(known.sites)
  for site, mean in means.items():
    expected = np.mean(np.asarray(recorded[site], np.float64), axis=(0, 1))
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


def test_no_text_is_refused(known):
  with pytest.raises(ValueError, match='batches must hold at least one'):
    ablation.site_means(known.config, known.params, [])
