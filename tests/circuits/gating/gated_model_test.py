"""Gates on nodes and edges do what their formula says."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model, task_loss
from sparse_interp.circuits.gating.gates import apply_gates
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import (
  constant_sites,
  edge_matrices,
  node_sites,
)


def _random_model(**switches):
  config = GPTConfig(
    **{
      'vocab_size': 9,
      'n_layer': 1,
      'd_model': 8,
      'd_head': 4,
      'd_mlp': 12,
      'context_length': 6,
      'activation_density': 0.5,
      'bigram_table': False,
      **switches,
    }
  )
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(0, 9, (2, 6)))
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)
  params = jax.tree.map(
    lambda x: jnp.asarray(
      rng.normal(0, 1, x.shape) * (rng.random(x.shape) < 0.6), jnp.float32
    ),
    shapes['params'],
  )
  values = {
    site: jnp.asarray(rng.normal(0, 1, width), jnp.float32)
    for site, width in constant_sites(config).items()
  }
  return gated_model.make(config, params, values), tokens, rng


@jax.jit
def _run(model, gates, tokens):
  params, edits = apply_gates(
    model.config, model.params, model.edges, gates, model.values
  )
  return GPT(model.config).apply({'params': params}, tokens, edits=edits)


@pytest.mark.slow
@pytest.mark.parametrize('sink', [False, True])
@pytest.mark.parametrize('number', range(6))
def test_a_product_with_gated_edges_is_that_of_the_formula(number, sink):
  model, tokens, rng = _random_model(sink=sink)
  matrix = edge_matrices(model.config)[number]
  index = np.asarray(model.edges[matrix.name])
  gate = np.float32(rng.random(index.shape[1]))
  _, seen = _run(model, {matrix.name: gate}, tokens)
  weights = np.asarray(matrix.block(model.params), np.float64)
  kept = np.zeros_like(weights)
  for row, column, g in zip(*index, gate, strict=True):
    kept[row, column] = weights[row, column] * g
  # Attention mixes values before the matrix reads them.
  read = matrix.source.replace('attn.v', 'attn.y')
  value = model.values[read if sink else matrix.source]
  dense = model.params['h_0'][matrix.path[1]][matrix.path[2]]
  bias = np.asarray(dense['bias'])[matrix.start : matrix.stop]
  expected = np.asarray(seen[read], np.float64) @ kept + bias
  expected += np.asarray(value, np.float64) @ (weights - kept)
  found = np.asarray(seen[f'{matrix.target}.raw'])
  np.testing.assert_allclose(found, expected, atol=2e-5)
  untouched, _ = _run(model, {}, tokens)
  assert np.abs(untouched - _run(model, {matrix.name: gate}, tokens)[0]).max()


@pytest.mark.slow
def test_edges_are_the_nonzero_weights_and_ones_change_nothing():
  model, tokens, _ = _random_model()
  for matrix in edge_matrices(model.config):
    weights = np.array(matrix.block(model.params))
    rows, columns = np.asarray(model.edges[matrix.name])
    assert np.all(weights[rows, columns])
    weights[rows, columns] = 0
    assert not weights.any()
  ones = units_lib.make(model, 'edges').filled(1.0)
  logits, _ = _run(model, ones, tokens)
  full, _ = GPT(model.config).apply({'params': model.params}, tokens)
  np.testing.assert_allclose(logits, full, atol=1e-5)


@pytest.mark.slow
@hypothesis.given(
  st.integers(0, 10_000),
  st.sampled_from(
    ['0.attn.act_in', '0.mlp.act_in', '0.attn.v', '0.mlp.post_act']
  ),
)
@hypothesis.settings(max_examples=10)
def test_without_its_outgoing_edges_a_node_is_removed(seed, site):
  model, tokens, _ = _random_model()
  off = np.random.default_rng(seed).random(node_sites(model.config)[site]) < 0.5
  by_edges = {
    name: 1 - off[np.asarray(index[0])].astype(np.float32)
    for name, index in model.edges.items()
    if name.startswith(f'{site}->')
  }
  by_node = {site: 1 - off.astype(np.float32)}
  np.testing.assert_allclose(
    _run(model, by_edges, tokens)[0],
    _run(model, by_node, tokens)[0],
    atol=1e-4,
  )


@pytest.mark.slow
def test_a_node_goes_with_its_last_incoming_edge():
  model, _, rng = _random_model()
  units = {
    name: np.float32(rng.random(index.shape[1]) < 0.15)
    for name, index in model.edges.items()
  }
  gates, seen = units_lib.unfold(model, units), set()
  for name, index in model.edges.items():
    target = name.split('->')[1]
    reached = np.zeros(node_sites(model.config)[target])
    np.maximum.at(reached, np.asarray(index[1]), units[name])
    np.testing.assert_array_equal(gates[target], reached)
    np.testing.assert_array_equal(gates[name], units[name])
    seen |= set(reached)
  assert seen == {0, 1}
  assert '0.attn.act_in' not in gates


@pytest.mark.slow
def test_a_node_without_incoming_edges_takes_its_value_after_abs_topk():
  model, tokens, _ = _random_model()
  units = {
    name: np.ones(index.shape[1], np.float32)
    for name, index in model.edges.items()
  }
  into = '0.attn.act_in->0.attn.q'
  units[into] = 1 - np.float32(np.asarray(model.edges[into][1]) == 2)
  _, seen = _run(model, units_lib.unfold(model, units), tokens)
  np.testing.assert_allclose(
    seen['0.attn.q'][..., 2], np.full((2, 6), model.values['0.attn.q'][2])
  )


def test_a_tied_unit_is_the_gate_of_query_and_key(known):
  unit = np.arange(8, dtype=np.float32) / 8
  sizes = units_lib.make(known.model, 'nodes', tie_qk=True).sizes
  assert list(sizes)[:3] == ['0.attn.act_in', '0.attn.qk', '0.attn.v']
  gates = units_lib.unfold(known.model, {'0.attn.qk': unit})
  assert set(gates) == {'0.attn.q', '0.attn.k'}
  for gate in gates.values():
    np.testing.assert_array_equal(gate, unit)


def test_final_stream_has_gates_on_its_nodes_with_edges_too(known):
  sizes = units_lib.make(known.model, 'edges').sizes
  assert sizes['final_resid'] == 8
  without = units_lib.make(known.model, 'edges', final_resid=False)
  assert 'final_resid' not in without.sizes
  assert sum(sizes.values()) == 8 + sum(
    int((np.asarray(m.block(known.params)) != 0).sum())
    for m in edge_matrices(known.config)
  )


def test_slopes_are_those_of_the_loss_in_every_gate(known):
  pairs = task_loss.make_pairs(known.train).take(np.arange(8))
  gates = {
    '0.attn.v': jnp.full(8, 0.8),
    '0.attn.v->0.attn.resid_delta': jnp.full(
      known.model.edges['0.attn.v->0.attn.resid_delta'].shape[1], 0.9
    ),
  }
  slopes = gated_model.gate_slopes(known.model, gates, pairs, 0.1)

  def loss(gates):
    answers = gated_model.all_outputs(known.model, gates, pairs)
    return float(pairs.losses(answers, 0.1).mean())

  for key, number in (('0.attn.v', 5), ('0.attn.v->0.attn.resid_delta', -1)):
    step = jnp.zeros_like(gates[key]).at[number].set(1e-2)
    up, down = (
      loss({**gates, key: gates[key] + sign * step}) for sign in (1, -1)
    )
    np.testing.assert_allclose(
      slopes[key][number], (up - down) / 2e-2, rtol=2e-2, atol=1e-4
    )


def test_any_number_of_pairs_is_answered_in_order(known):
  pairs = task_loss.make_pairs(known.train)
  gates = {'0.attn.act_in': np.ones(8, np.float32)}
  whole = gated_model.all_outputs(known.model, gates, pairs)
  assert whole.shape == (64, 2)
  for chosen in (np.arange(5), np.arange(20, 60)):
    np.testing.assert_allclose(
      gated_model.all_outputs(known.model, gates, pairs.take(chosen)),
      whole[chosen],
      rtol=1e-5,
      atol=1e-5,
    )


def test_an_unknown_ablation_is_named(known):
  with pytest.raises(ValueError, match=r"^ablation .* got 'noise'"):
    gated_model.make(known.config, known.params, known.means, 'noise')
