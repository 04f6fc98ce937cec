"""Small and edited model equal the gated model, whatever the switches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.extracted import extract, small_model
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.ablation import CONSTANT, constants
from sparse_interp.circuits.gating.edited_model import edit_model
from sparse_interp.circuits.gating.gates import apply_gates
from sparse_interp.circuits.gating.output_loss import Recorded
from sparse_interp.models import GPT
from sparse_interp.models.sites import node_sites
from sparse_interp.ops.topk.topk import abs_topk
from tests.circuits.extracted.all_switches import CASES, make_case, make_model


@jax.jit
def _run_gated(model, gates, tokens):
  params, edits = apply_gates(
    model.config,
    model.params,
    model.edges,
    gates,
    model.values,
    closed=model.closed,
  )
  return GPT(model.config).apply({'params': params}, tokens, edits=edits)[0]


@functools.partial(jax.jit, static_argnames='config')
def _run_edited(config, params, edits, tokens):
  return GPT(config).apply({'params': params}, tokens, edits=edits)[0]


def _gated_logits(model, gates, tokens):
  # A name that changes nothing here would only compile anew.
  model = dataclasses.replace(model, ablation='mean')
  return np.asarray(_run_gated(model, gates, tokens))


def _draw(units, share, rng):
  """A random circuit; of edges, more, so that there are paths."""
  masks = units.split(rng.random(units.count) < share)
  if share < 0.5:
    for key in ('0.attn.v', '1.mlp.act_in'):
      if key in masks:
        masks[key][:] = False
  return units.settle(units.flatten(masks))


def test_one_layer_without_most_of_its_nodes_gives_the_same_logits():
  config, params, means, tokens, rng = make_model(
    {'n_layer': 1, 'activation_density': None, 'use_bias': False}
  )
  model = gated_model.make(config, params, means)
  units = units_lib.make(model, 'nodes')
  keep = rng.random(units.count) < 0.3
  expected = _gated_logits(model, units.unfold(keep), tokens)
  nodes = units.parts(keep).nodes
  small = extract.shrink(config, params, nodes, means)
  assert small.embedding.shape[1] < config.d_model  # some are not carried
  scale = np.abs(expected).max()
  found = jax.jit(small_model.apply)(small, tokens)
  np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


# Every case compiles three models for each ablation.
@pytest.mark.slow
@pytest.mark.parametrize('gates', ['nodes', 'edges'])
@pytest.mark.parametrize('name', CASES)
def test_gated_small_and_edited_model_give_the_same_logits(name, gates):
  config, params, means, tokens, rng = make_case(name)
  batch = Recorded(
    tokens, jnp.array([10, 4, 7]), jnp.zeros((3, 10, 1)), jnp.ones(3)
  )
  apply = jax.jit(small_model.apply)
  models = [
    gated_model.make(
      config,
      params,
      constants(config, params, means, kind, batch),
      kind,
      closed=closed,
    )
    for kind, closed in (*((kind, False) for kind in CONSTANT), ('mean', True))
  ]
  units = units_lib.make(models[0], gates, 'rectified' not in name)
  whole = units_lib.unfold(models[0], units.filled(1.0))
  full = _gated_logits(models[0], whole, tokens)
  for share in (0.15, 0.6) if gates == 'nodes' else (0.7,):
    keep = _draw(units, share, rng)
    on, made = units.unfold(keep), units.parts(keep)
    edges = made.edges if gates == 'edges' else None
    for model in models:
      expected = _gated_logits(model, on, tokens)
      scale = max(1, np.abs(expected).max())
      assert np.abs(expected - full).max() / scale > 1e-3
      small = extract.shrink(
        config,
        params,
        made.nodes,
        model.values,
        model.edges,
        edges,
        model.closed,
      )
      np.testing.assert_allclose(
        apply(small, tokens) / scale, expected / scale, atol=1e-5
      )
      logits = _run_edited(*edit_model(model, on), tokens)
      np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'left'),
  [
    ('no activation sparsity', ['final_resid']),
    ('rms, sinusoids, sink, all dense', ['final_resid']),
    (
      'no norm, added positions',
      ['0.attn.k', '0.attn.resid_delta', '1.attn.k', '1.attn.resid_delta']
      + ['final_resid'],
    ),
  ],
)
def test_removal_becomes_parameters_wherever_no_abs_topk_acts(name, left):
  config, params, means, _, rng = make_case(name)
  model = gated_model.make(config, params, means)
  units = units_lib.make(model, 'nodes')
  on = units.unfold(_draw(units, 0.5, rng))
  _, edited, edits = edit_model(model, on)
  assert sorted(edits) == left
  kept = np.asarray(on['0.mlp.act_in']) > 0
  kernel = np.asarray(edited['h_0']['mlp']['c_fc']['kernel'])
  before = np.asarray(params['h_0']['mlp']['c_fc']['kernel'])
  np.testing.assert_array_equal(kernel[kept], before[kept])
  assert not kernel[~kept].any()
  assert before[~kept].any()


def test_values_of_other_prompts_cannot_become_parameters():
  config, params, means, _, _ = make_case('published')
  model = gated_model.make(config, params, means, 'resample')
  with pytest.raises(ValueError, match=r"ablation must be .* got 'resample'"):
    edit_model(model, {})


@pytest.mark.slow
@pytest.mark.parametrize('closed', [False, True])
def test_gates_of_the_small_model_remove_further_nodes_at_one_position(closed):
  config, params, means, tokens, rng = make_model({'sink': True})
  sites = node_sites(config)
  nodes = {
    site: np.flatnonzero(rng.random(width) < 0.5)
    for site, width in sites.items()
  }
  fewer = {site: kept[::2] for site, kept in nodes.items()}
  model = gated_model.make(config, params, means, closed=closed)
  units = units_lib.make(model, 'nodes')
  on = units.unfold(units.mask_of(fewer))
  expected = _gated_logits(model, on, tokens)
  small = extract.shrink(config, params, nodes, means, closed=closed)
  removed = {
    site: jnp.asarray(np.arange(kept.size) % 2 == 0, jnp.float32)
    for site, kept in nodes.items()
  }
  positions = jnp.array([3, 9, 0])
  logits = jax.jit(small_model.apply)(small, tokens, positions, removed)
  expected = expected[np.arange(3), positions]
  np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
def test_small_model_does_not_see_what_follows_the_length():
  config, params, means, tokens, rng = make_model({'causal': False})
  nodes = {
    site: np.flatnonzero(rng.random(width) < 0.5)
    for site, width in node_sites(config).items()
  }
  small = extract.shrink(config, params, nodes, means)
  apply = jax.jit(small_model.apply)
  padded = apply(small, tokens, lengths=jnp.array([10, 4, 4]))
  expected = apply(small, tokens[:, :4])
  np.testing.assert_allclose(padded[1:, :4], expected[1:], atol=1e-4)
  np.testing.assert_allclose(padded[0], apply(small, tokens)[0], atol=1e-4)
  assert np.abs(apply(small, tokens)[1:, :4] - expected[1:]).max() > 1e-2


def test_small_model_without_activation_sparsity_holds_kept_weights_only():
  config, params, means, _, _ = make_model(
    {'activation_density': None, 'bigram_table': False}
  )
  nodes = {site: np.array([1]) for site in node_sites(config)}
  small = extract.shrink(config, params, nodes, means)
  assert small.embedding.shape == (config.vocab_size, 1)
  assert small.blocks[0].q.kernel.shape == (1, 1)
  assert small.blocks[1].out.kernel.shape == (1, 1)
  assert small.size() < 0.1 * sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize('count', [3, 30])
def test_rank_of_kept_nodes_agrees_with_abs_topk_and_its_ties(count):
  rng = np.random.default_rng(0)
  full = jnp.asarray(rng.integers(-3, 4, (20, 40)), jnp.float32)
  kept = jnp.asarray(np.sort(rng.choice(40, count, replace=False)))
  for k in (1, 7, 39):
    np.testing.assert_array_equal(
      small_model.keep_largest(full, kept, k), abs_topk(full, k)[:, kept]
    )
