"""The truth of compiled programs, which component reads which, is true."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ground_truth.compiled.edges import (
  component_edges,
  edge_groups,
)
from sparse_interp.ground_truth.compiled.paths import path_weights
from sparse_interp.ground_truth.compiled.programs import PROGRAMS
from sparse_interp.ground_truth.compiled.tracr import compile_program
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import edge_matrices
from tests.ground_truth.compiled.compiled_programs import (
  assert_same_outputs,
  program_of,
)

TRUTHS = {
  'frac_prevs': (
    'embed>m0 m0>a1.h0.v embed>a1.h0.q embed>a1.h0.k a1.h0>output'
  ),
  'hist': 'embed>a0.h0.q embed>a0.h0.k embed>a0.h0.v a0.h0>m0 m0>output',
  'length': 'embed>a0.h0.v a0.h0>m0 m0>output',
  'reverse': (
    'embed>a0.h0.v a0.h0>m0 m0>m1 embed>m1 m1>m2 m2>a3.h0.q embed>a3.h0.k '
    'embed>a3.h0.v a3.h0>output'
  ),
  'sort_unique': (
    'embed>a0.h0.q embed>a0.h0.k embed>a0.h0.v a0.h0>m0 embed>m0 '
    'm0>a1.h0.k embed>a1.h0.q embed>a1.h0.v a1.h0>output'
  ),
  'pair_balance': (
    'embed>m0 m0>a1.h0.v embed>a1.h0.q embed>a1.h0.k m0>a1.h1.v '
    'embed>a1.h1.q embed>a1.h1.k a1.h0>m1 a1.h1>m1 m1>output'
  ),
  'count_less_freq': (
    'embed>a0.h0.q embed>a0.h0.k embed>a0.h0.v a0.h0>m0 embed>m0 '
    'm0>a1.h0.k embed>a1.h0.k embed>a1.h0.v a1.h0>m1 m1>output'
  ),
}

# What the weights read though a constant would do: BOS, to clear a count that
# nobody looks at; keys and queries of a selector that ignores them.
CONSTANTS = {
  'hist': 'embed>m0',
  'length': 'embed>m0 embed>a0.h0.q embed>a0.h0.k',
  'reverse': 'embed>m0 embed>a0.h0.q embed>a0.h0.k',
  'sort_unique': 'embed>a1.h0.k',
  'count_less_freq': 'embed>m1 m0>a1.h0.q',
}


def _edges(text):
  return {tuple(edge.split('>')) for edge in text.split()}


@pytest.mark.parametrize('name', PROGRAMS)
def test_the_truth_is_what_the_weights_read_but_for_constants(name):
  program = program_of(name)
  assert program.edges == _edges(TRUTHS[name])
  constants = _edges(CONSTANTS.get(name, ''))
  assert not program.edges & constants
  assert component_edges(program) == program.edges | constants


@pytest.mark.slow
@pytest.mark.parametrize('name', PROGRAMS)
def test_an_edge_is_what_no_constant_can_replace(name):
  program = program_of(name)
  config, inputs = program.config, program.draw(300, seed=0)
  matrices = {m.name: m for m in edge_matrices(config)}
  time = np.arange(inputs.tokens.shape[1])
  seen = time < inputs.lengths[:, None]

  @jax.jit
  def run(params, unread, constant):
    return GPT(config).apply(
      {'params': params},
      jnp.asarray(inputs.tokens),
      lengths=jnp.asarray(inputs.lengths),
      edits={'final_resid': lambda x: jnp.where(unread, constant, x)},
    )

  nothing = np.zeros(config.d_model)
  expected, activations = run(program.params, nothing > 0, nothing)
  needed = set()
  for edge, group in edge_groups(program).items():
    ((key, mask),) = group.items()
    channels = mask if mask.ndim == 1 else mask.any(axis=1)
    site = key.split('->')[0]
    values = np.asarray(activations[site])[seen][:, channels]
    candidates = [0 * values[0], *np.unique(values.round(4), axis=0)[:40]]
    for candidate in candidates:
      constant = np.zeros(config.d_model, np.float32)
      constant[channels] = candidate
      if key == 'final_resid':
        found, _ = run(program.params, mask, constant)
      else:
        matrix = matrices[key]
        params = _with_constant(program.params, matrix, mask, constant)
        found, _ = run(params, nothing > 0, nothing)
      error = np.abs(np.asarray(found - expected))[seen & (time > 0)]
      if error.max() < 0.01:
        break
    else:
      needed.add(edge)
  assert needed == program.edges


def _with_constant(params, matrix, mask, constant):
  """Masked weights see a constant: their product goes to the bias."""
  block = np.asarray(matrix.block(params))
  added = constant @ (block * mask)
  params = matrix.replace_block(params, jnp.asarray(block * ~mask))
  bias_path = (*matrix.path[:-1], 'bias')

  def replaced(node, path):
    if not path:
      return node.at[matrix.start : matrix.stop].add(added)
    return {**node, path[0]: replaced(node[path[0]], path[1:])}

  return replaced(params, bias_path)


@pytest.mark.parametrize('name', PROGRAMS)
def test_groups_part_the_reading_weights_and_without_one_its_edge_is_gone(name):
  program = program_of(name)
  full = component_edges(program)
  reading = {
    m.name: np.asarray(m.block(program.params)) != 0
    for m in edge_matrices(program.config)
    if m.source.endswith('act_in')
  }
  kernel = np.asarray(program.params['lm_head']['kernel'])
  reading['final_resid'] = kernel.any(axis=1)
  counts = {key: np.zeros(mask.shape, int) for key, mask in reading.items()}
  for edge, group in edge_groups(program).items():
    ((key, mask),) = group.items()
    counts[key] += mask
    if key == 'final_resid':
      left = component_edges(program, final_resid=~mask)
    else:
      left = component_edges(program, {key: ~mask})
    assert left == full - {edge}
  for key, mask in reading.items():
    np.testing.assert_array_equal(counts[key], mask)


def test_nothing_kept_is_no_edge_and_a_writer_has_to_write():
  program = program_of('reverse')
  masks = {
    m.name: np.zeros(np.shape(m.block(program.params)), bool)
    for m in edge_matrices(program.config)
  }
  nobody = np.zeros(program.config.d_model, bool)
  assert not component_edges(program, masks, nobody)
  writing = '2.mlp.post_act->2.mlp.resid_delta'
  left = component_edges(program, {writing: masks[writing]})
  assert component_edges(program) - left == {('m2', 'a3.h0.q')}
  with pytest.raises(ValueError, match=r'0\.mlp'):
    component_edges(
      program, {'0.mlp.act_in->0.mlp.post_act': np.ones((2, 2), bool)}
    )


def test_weights_on_no_path_do_not_matter():
  program = program_of('reverse')
  params, kept = program.params, path_weights(program.config, program.params)
  total = 0
  for matrix in edge_matrices(program.config):
    block = matrix.block(params)
    total += int(jnp.sum(block != 0))
    assert np.all(np.asarray(block)[kept[matrix.name]] != 0)
    params = matrix.replace_block(params, block * kept[matrix.name])
  assert 0.5 * total < sum(mask.sum() for mask in kept.values()) < 0.8 * total
  inputs = program.draw(400, seed=0)
  pruned = dataclasses.replace(program, params=params)
  outputs = pruned.run(inputs.tokens, inputs.lengths)
  assert_same_outputs(program, inputs, np.asarray(outputs))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4))
def test_weights_on_a_path_are_those_with_a_gradient(seed):
  rng = np.random.default_rng(seed)
  config = GPTConfig(
    vocab_size=7,
    n_layer=2,
    d_model=8,
    d_head=3,
    n_head=2,
    d_mlp=6,
    context_length=6,
    norm='none',
    use_bias=False,
    activation_density=None,
    bigram_table=False,
    position='added',
    sink=bool(seed % 2),
  )
  tokens = jnp.asarray(rng.integers(0, 7, (4, 6)))
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)
  density = {'embedding': 0.1, 'kernel': 0.2, 'sink_logit': 1.0}
  params = jax.tree.map_with_path(
    lambda path, x: jnp.asarray(
      rng.normal(0, 1, x.shape) * (rng.random(x.shape) < density[path[-1].key]),
      jnp.float32,
    ),
    shapes['params'],
  )
  # Rows of whole channels, so that some are never written or read.
  for table in ('wte', 'wpe'):
    params[table]['embedding'] *= np.arange(8) % 3 == 0
  params['lm_head']['kernel'] *= (np.arange(8) % 2 == 0)[:, None]
  weights = jnp.asarray(rng.normal(0, 1, (4, 6, 7)))

  def total(params):
    return jnp.sum(GPT(config).apply({'params': params}, tokens)[0] * weights)

  gradient = jax.jit(jax.grad(total))(params)
  for matrix in edge_matrices(config):
    on_path = path_weights(config, params)[matrix.name]
    moved = np.asarray(
      (matrix.block(gradient) != 0) & (matrix.block(params) != 0)
    )
    np.testing.assert_array_equal(on_path, moved, err_msg=matrix.name)


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    (
      {'position': 'rotary', 'rotary_fraction': 0.5},
      r"model\.position must not be 'rotary'",
    ),
    ({'parallel_residual': True}, r'model\.parallel_residual must not be True'),
  ],
)
def test_paths_are_not_followed_where_channels_mix_otherwise(fields, expected):
  program = program_of('hist')
  config = dataclasses.replace(program.config, **fields)
  with pytest.raises(ValueError, match=expected):
    path_weights(config, program.params)


@pytest.mark.slow
def test_a_mean_over_all_tells_keys_from_bos():
  from tracr.rasp import rasp

  everything = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.TRUE)
  is_x = rasp.numerical(rasp.tokens == 'x').named('is_x')
  share = rasp.numerical(rasp.Aggregate(everything, is_x, default=0))
  needed = {('m0', 'a1.h0.v'), ('embed', 'm0')}
  program = compile_program(share, 'xy', 4)
  mean = {('embed', 'a1.h0.k'), ('a1.h0', 'output')}
  assert program.edges == needed | mean
  some = rasp.Map(lambda x: x > 0, share.named('share')).named('some')
  program = compile_program(some, 'xy', 4)
  assert program.edges == needed | {('a1.h0', 'm1'), ('m1', 'output')}
