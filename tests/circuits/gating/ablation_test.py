"""What removed parts take: means, zeros, and values of other prompts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits.gating import ablation, gated_model, task_loss
from sparse_interp.circuits.gating.output_loss import Recorded, make_recorded
from sparse_interp.models import GPT
from sparse_interp.models.means import site_means


@pytest.mark.slow
def test_means_pool_batches_of_unequal_size_over_all_positions(known):
  rng = np.random.default_rng(0)
  batches = [rng.integers(0, 12, (n, 8)) for n in (2, 5)]
  means = site_means(known.config, known.params, batches)
  _, recorded = GPT(known.config).apply(
    {'params': known.params}, jnp.asarray(np.concatenate(batches))
  )
  assert list(means) == list(known.sites)
  for site, mean in means.items():
    expected = np.mean(np.asarray(recorded[site], np.float64), axis=(0, 1))
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


def test_no_text_is_refused(known):
  with pytest.raises(ValueError, match='batches must hold at least one'):
    site_means(known.config, known.params, [])


def test_constants_are_zero_or_the_given_means_or_those_of_the_task(known):
  pairs = task_loss.make_pairs(known.train)
  means = {site: mean + 3 for site, mean in known.means.items()}
  found = {
    kind: ablation.constants(known.config, known.params, means, kind, pairs)
    for kind in ablation.ABLATIONS
  }
  for site, width in known.sites.items():
    np.testing.assert_array_equal(found['zero'][site], np.zeros(width))
    for kind in ('mean', 'subsets', 'resample', 'counterfactual'):
      np.testing.assert_array_equal(found[kind][site], np.full(width, 3))
  # Half of the prompts add what the other half takes away.
  assert abs(float(found['task_mean']['0.attn.act_in'][0])) < 1e-6
  with pytest.raises(ValueError, match=r"ablation .* got 'noise'"):
    ablation.constants(known.config, known.params, means, 'noise', pairs)


def test_task_means_leave_padding_out(known):
  pairs = task_loss.make_pairs(known.train)
  tokens = np.array(pairs.tokens.reshape(-1, 8))
  visible = np.arange(8) <= np.asarray(pairs.last).reshape(-1, 1)
  assert not visible.all()
  tokens[~visible] = 7
  repadded = pairs._replace(tokens=jnp.asarray(tokens.reshape(64, 2, 8)))
  _, seen = GPT(known.config).apply(
    {'params': known.params}, jnp.asarray(tokens)
  )
  for batch in (pairs, repadded):
    means = ablation.task_means(known.config, known.params, batch)
    for site in known.sites:
      expected = np.asarray(seen[site], np.float64)[visible].mean(axis=0)
      np.testing.assert_allclose(means[site], expected, atol=1e-5)


def test_task_means_of_sequences_leave_padding_out(known):
  tokens = np.array([[1, 5, 6, 7], [2, 5, 0, 0]])
  batch = make_recorded(
    tokens, np.array([4, 2]), np.random.default_rng(0).normal(size=(2, 4, 1))
  )
  assert isinstance(batch, Recorded)
  means = ablation.task_means(known.config, known.params, batch)
  embedding = np.asarray(known.params['wte']['embedding'])
  expected = embedding[[1, 5, 6, 7, 2, 5]].mean(axis=0)
  np.testing.assert_allclose(means['0.attn.act_in'], expected, atol=1e-5)


def _without_anything(known, kind, site):
  """Activation at a site that is removed whole, and what the full model has."""
  model = dataclasses.replace(known.model, ablation=kind)
  pairs = task_loss.make_pairs(known.train).take(np.arange(8))
  key = jax.random.key(3)
  seen = {}

  class Watch:
    """Pairs that keep what the model is asked, instead of its answers."""

    size = 8

    def __getattr__(self, name):
      return getattr(pairs, name)

    def inputs(self):
      return {'tokens': pairs.tokens.reshape(-1, 8)}

    def read(self, logits):
      seen['logits'] = logits
      return logits

  off = {site: jnp.zeros(known.sites[site])}
  gated_model.outputs(model, off, Watch(), key)
  return pairs, key, seen['logits']


def test_a_counterfactual_is_the_value_on_the_other_prompt(known):
  pairs, _, logits = _without_anything(known, 'counterfactual', 'final_resid')
  # Both prompts of these pairs end at the same position.
  tokens = pairs.tokens.reshape(-1, 8)
  full, _ = GPT(known.config).apply({'params': known.params}, tokens)
  swapped = full.reshape(8, 2, 8, -1)[:, ::-1].reshape(full.shape)
  np.testing.assert_allclose(logits, swapped, atol=1e-5)
  assert np.abs(logits - full).max() > 1


def test_a_resampled_value_is_that_of_another_prompt_aligned_at_its_end(known):
  pairs, key, logits = _without_anything(known, 'resample', 'final_resid')
  tokens = np.asarray(pairs.tokens.reshape(-1, 8))
  last = np.asarray(pairs.last).reshape(-1)
  full, _ = GPT(known.config).apply(
    {'params': known.params}, jnp.asarray(tokens)
  )
  full = np.asarray(full)
  inputs, _ = pairs.partners('resample', key)
  partner = [
    int(np.flatnonzero((tokens == other).all(axis=1))[0])
    for other in np.asarray(inputs['tokens'])
  ]
  assert sorted(partner) == list(range(16))
  assert len(set(last)) > 1
  for row, other in enumerate(partner):
    for back in range(min(last[row], last[other]) + 1):
      np.testing.assert_allclose(
        logits[row, last[row] - back],
        full[other, last[other] - back],
        atol=1e-5,
      )
  again, _ = pairs.partners('resample', jax.random.key(4))
  assert not np.array_equal(again['tokens'], inputs['tokens'])


def test_removed_edges_carry_the_values_of_the_other_prompt(known):
  model = dataclasses.replace(known.model, ablation='counterfactual')
  pairs = task_loss.make_pairs(known.train)
  name = '0.attn.v->0.attn.resid_delta'
  none = {name: np.zeros(known.model.edges[name].shape[1], np.float32)}
  full = gated_model.all_outputs(model, {}, pairs)
  answers = gated_model.all_outputs(model, none, pairs)
  # The path runs through these edges alone, and both prompts of a pair are
  # equally long: it tells what the other prompt's attention has mixed.
  np.testing.assert_allclose(answers, full[:, ::-1], atol=1e-4)
  assert np.abs(answers - full).min() > 1


def test_half_of_what_was_removed_comes_back_and_another_half_each_time(known):
  model = dataclasses.replace(known.model, ablation='subsets')
  pairs = task_loss.make_pairs(known.train)
  off = {'0.attn.v': jnp.zeros(8)}
  full = gated_model.all_outputs(model, {}, pairs)
  restored = []
  for seed in range(20):
    # One draw for each batch of 32 pairs: the path is there, or it is not.
    answers = gated_model.all_outputs(model, off, pairs, seed)
    for half in np.split(np.arange(64), 2):
      back = np.allclose(answers[half], full[half], atol=1e-4)
      assert back or np.allclose(answers[half], 0, atol=1e-4)
      restored.append(back)
  assert 10 <= sum(restored) <= 30
  pairwise = np.array(restored).reshape(20, 2)
  assert np.any(pairwise[:, 0] != pairwise[:, 1])
  on = {'0.attn.v': jnp.ones(8)}
  np.testing.assert_allclose(
    gated_model.all_outputs(model, on, pairs), full, atol=1e-5
  )
