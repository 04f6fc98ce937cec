"""Counts on weights made by hand."""

import jax.numpy as jnp
import numpy as np

from sparse_interp.sparsity import rules, statistics


def block(c_attn, attn_out, c_fc, mlp_out):
  return {
    'h_0': {
      'attn': {'c_attn': {'kernel': c_attn}, 'c_proj': {'kernel': attn_out}},
      'mlp': {'c_fc': {'kernel': c_fc}, 'c_proj': {'kernel': mlp_out}},
    }
  }


def alive():
  return block(*map(jnp.ones, [(3, 6), (2, 3), (3, 4), (4, 3)]))


def test_nonzeros_are_counted_by_name():
  params = alive()
  kernel = params['h_0']['mlp']['c_fc']
  kernel['kernel'] = kernel['kernel'].at[0, 1].set(0)
  counts = statistics.nonzero_counts(params)
  assert int(counts['h_0/mlp/c_fc/kernel']) == 11
  assert int(counts['h_0/attn/c_attn/kernel']) == 18
  assert int(counts['h_0/mlp/c_proj/kernel']) == 12


def test_asked_counts_are_final_counts_or_sizes():
  targets = {
    'h_0/mlp/c_fc/kernel': rules.Target(np.array([12, 7, 5], np.int32)),
    'h_0/mlp/c_proj/kernel': rules.Target(3),
  }
  asked = statistics.asked_counts(alive(), targets)
  assert asked['h_0/mlp/c_fc/kernel'] == 5
  assert asked['h_0/mlp/c_proj/kernel'] == 3
  for step, count in ((0, 12), (1, 7), (2, 5), (9, 5)):
    asked = statistics.asked_counts(alive(), targets, step)
    assert asked['h_0/mlp/c_fc/kernel'] == count
  assert asked['h_0/attn/c_attn/kernel'] == 18


def test_a_neuron_without_input_or_without_output_is_dead():
  params = alive()
  mlp = params['h_0']['mlp']
  assert int(statistics.dead_neurons(params)) == 0
  mlp['c_fc']['kernel'] = mlp['c_fc']['kernel'].at[:, 2].set(0)
  mlp['c_proj']['kernel'] = mlp['c_proj']['kernel'].at[0].set(0)
  assert int(statistics.dead_neurons(params)) == 2
  # Both at once is still one neuron.
  mlp['c_proj']['kernel'] = mlp['c_proj']['kernel'].at[2].set(0)
  assert int(statistics.dead_neurons(params)) == 2


def test_channels_die_without_input_and_value_channels_without_output():
  params = alive()
  attn = params['h_0']['attn']
  assert int(statistics.dead_attention_channels(params)) == 0
  # Columns are q0 q1 k0 k1 v0 v1.
  attn['c_attn']['kernel'] = attn['c_attn']['kernel'].at[:, [0, 3]].set(0)
  assert int(statistics.dead_attention_channels(params)) == 2
  attn['c_proj']['kernel'] = attn['c_proj']['kernel'].at[1].set(0)
  assert int(statistics.dead_attention_channels(params)) == 3


def test_churn_is_the_share_of_nonzeros_that_are_new():
  before = {'w': jnp.array([1.0, 0.0, 2.0, 0.0]), 'dense': jnp.zeros(9)}
  after = {'w': jnp.array([0.0, 3.0, 1.0, 0.0]), 'dense': jnp.ones(9)}
  assert float(statistics.mask_churn(before, after, ['w'])) == 0.5
  assert float(statistics.mask_churn(before, before, ['w'])) == 0.0
  assert float(statistics.mask_churn(before, after, [])) == 0.0
