"""Compiled programs run as Tracr's own models do, and their truth is true."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.interop import (
  compile_program,
  component_edges,
  convert,
  edge_groups,
  load,
  path_weights,
  save,
)
from sparse_interp.interop.programs import PROGRAMS, compile_published
from sparse_interp.interop.tracr import reference_outputs
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import edge_matrices, node_sites

DIRECTORY = pathlib.Path(__file__).parents[1] / 'data' / 'compiled'

MEANINGS = {
  'frac_prevs': lambda s: [s[:i].count('x') / i for i in range(1, len(s) + 1)],
  'hist': lambda s: [s.count(token) for token in s],
  'length': lambda s: [len(s)] * len(s),
  'reverse': lambda s: s[::-1],
  'sort_unique': sorted,
  'pair_balance': lambda s: [
    (s[:i].count('(') - s[:i].count(')')) / i for i in range(1, len(s) + 1)
  ],
  # Fewer than or equal to 2, whatever its name says.
  'count_less_freq': lambda s: [sum(s.count(t) <= 2 for t in s)] * len(s),
}

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


@functools.cache
def _program(name):
  return load(DIRECTORY / f'{name}.npz')


def _compare(program, inputs, expected):
  found = np.asarray(program.run(inputs.tokens, inputs.lengths))
  real = np.arange(found.shape[1]) < inputs.lengths[:, None]
  np.testing.assert_allclose(found[real], expected[real], atol=1e-5)


def _sequences(program, inputs):
  return [
    [program.vocab[i] for i in row[1:length]]
    for row, length in zip(inputs.tokens, inputs.lengths, strict=True)
  ]


def _assert_means(program, inputs, meaning):
  outputs = np.asarray(program.run(inputs.tokens, inputs.lengths))
  decoded = program.decode(outputs, inputs.lengths)
  sequences = _sequences(program, inputs)
  for i, sequence in enumerate(sequences):
    expected = meaning(sequence)
    np.testing.assert_allclose(decoded[i], expected, atol=1e-5)
    if program.output_kind == 'categorical':
      one_hot = [[v == x for v in program.output_values] for x in expected]
      found = outputs[i, 1 : len(sequence) + 1]
      np.testing.assert_allclose(found, one_hot, atol=1e-5)


@pytest.mark.parametrize('name', PROGRAMS)
def test_outputs_are_those_of_tracr_and_mean_what_the_program_says(name):
  program = _program(name)
  _compare(program, program.examples, program.examples.outputs)
  inputs = program.draw(400, seed=1)
  _assert_means(program, inputs, MEANINGS[name])
  again = program.encode(_sequences(program, inputs))
  np.testing.assert_array_equal(again.tokens, inputs.tokens)


@pytest.mark.parametrize('name', PROGRAMS)
def test_the_truth_is_what_the_weights_read_but_for_constants(name):
  program = _program(name)
  assert program.edges == _edges(TRUTHS[name])
  constants = _edges(CONSTANTS.get(name, ''))
  assert not program.edges & constants
  assert component_edges(program) == program.edges | constants


@pytest.mark.parametrize('name', PROGRAMS)
def test_an_edge_is_what_no_constant_can_replace(name):
  program = _program(name)
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
  program = _program(name)
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
  program = _program('reverse')
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


def test_nodes_are_named_by_what_they_do():
  reverse, balance = _program('reverse'), _program('pair_balance')
  for program in (reverse, balance):
    for site, width in node_sites(program.config).items():
      assert len(program.labels[site]) == width
  assert 'indices:2 & length:3' in reverse.labels['1.mlp.post_act']
  assert reverse.labels['3.attn.k'][:2] == ('tokens:compiler_bos', 'indices:0')
  assert reverse.labels['3.attn.v'][0] == 'reverse:1'
  assert '-closes' in balance.labels['1.mlp.post_act']
  writers = dict(zip(reverse.channels, reverse.writers, strict=True))
  assert writers['length:3'] == 'm0'
  assert writers['opp_idx:2'] == 'm1'
  assert writers['length_selector_width_attn_output'] == 'a0.h0'
  assert writers['tokens:2'] == writers['one'] == 'embed'


def test_weights_on_no_path_do_not_matter():
  program = _program('reverse')
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
  _compare(program, inputs, np.asarray(outputs))


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
  program = _program('hist')
  config = dataclasses.replace(program.config, **fields)
  with pytest.raises(ValueError, match=expected):
    path_weights(config, program.params)


def test_a_program_survives_a_file(tmp_path):
  program = _program('hist')
  save(program, tmp_path / 'again.npz')
  first, second = (
    np.load(path) for path in (DIRECTORY / 'hist.npz', tmp_path / 'again.npz')
  )
  assert first.files == second.files
  for name in set(first.files) - {'description'}:
    np.testing.assert_array_equal(first[name], second[name])
  old, new = (json.loads(str(file['description'])) for file in (first, second))
  # A field that came to GPTConfig later has its default.
  defaults = {f.name: f.default for f in dataclasses.fields(GPTConfig)}
  assert new == old | {'config': defaults | old['config']}
  assert load(tmp_path / 'again.npz').config == program.config
  assert (DIRECTORY / 'hist.npz').stat().st_size < 30_000


def _rewrite(path, **changes):
  arrays = dict(np.load(DIRECTORY / 'hist.npz'))
  for name, change in changes.items():
    name = name.replace('__', '/')
    arrays[name] = change(arrays[name])
    if arrays[name] is None:
      del arrays[name]
  np.savez(path, **arrays)


@pytest.mark.parametrize(
  'damage',
  [
    lambda path: path.write_bytes(b'not an archive'),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes((DIRECTORY / 'hist.npz').read_bytes()[:2000]),
    lambda path: np.save(path.open('wb'), np.zeros(3)),
    lambda path: np.save(path.open('wb'), np.array([{}], object)),
    lambda path: _rewrite(
      path, params__wte__embedding=lambda x: np.array([{}], object)
    ),
    lambda path: _rewrite(path, params__wte__embedding=lambda x: x[:2]),
    lambda path: _rewrite(path, params__wte__embedding=lambda x: None),
    lambda path: _rewrite(path, params__lm_head__kernel=lambda x: x * np.nan),
    lambda path: _rewrite(path, examples__outputs=lambda x: x[:3]),
    lambda path: _rewrite(path, description=lambda x: None),
    lambda path: _rewrite(path, description=lambda x: np.array('{')),
    lambda path: _rewrite(path, description=lambda x: np.array('[1]')),
    lambda path: _rewrite(
      path, description=lambda x: np.array(str(x).replace('"hist:1"', '1, 2'))
    ),
    lambda path: _rewrite(
      path, description=lambda x: np.array(str(x).replace('n": 1', 'n": 9'))
    ),
    lambda path: _rewrite(
      path,
      description=lambda x: np.array(
        str(x).replace('n_layer": 1', 'n_layer": -1')
      ),
    ),
  ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
  path = tmp_path / 'damaged.npz'
  damage(path)
  with pytest.raises(ValueError) as error:
    load(path)
  assert '\n' not in str(error.value)
  assert 'must' in str(error.value)


def test_unknown_tokens_are_refused_by_name():
  with pytest.raises(ValueError, match="'q'"):
    _program('hist').encode([['a', 'q']])
  with pytest.raises(ValueError, match='nonsense'):
    compile_published('nonsense')


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


@pytest.mark.slow
@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('name', PROGRAMS)
def test_compiling_again_gives_the_same_program(name, causal, tmp_path):
  from tracr.compiler import compiling, lib
  from tracr.rasp import causal_eval, rasp

  published = PROGRAMS[name]
  expression = published.build(rasp, lib)
  assembled = compiling.compile_rasp_to_model(
    expression, set(published.vocab), published.max_length, causal=causal
  )
  program = convert(assembled, expression, name, published.unique_tokens)
  inputs = program.draw(400, seed=2)
  _compare(program, inputs, reference_outputs(assembled, expression, inputs))
  if causal:
    if name != 'sort_unique':  # which may find nothing, and so is undefined
      _assert_means_causally(program, inputs, expression, causal_eval.evaluate)
    return
  save(program, tmp_path / 'again.npz')
  first, second = (
    np.load(path)
    for path in (DIRECTORY / f'{name}.npz', tmp_path / 'again.npz')
  )
  assert first.files == second.files
  for array in first.files:
    rounding = 1e-5 if array == 'examples/outputs' else 0
    if first[array].dtype.kind == 'U':
      old, new = (json.loads(str(one[array])) for one in (first, second))
      # Files from before a switch was there have its default.
      sites = tuple(old['config'].pop('activation_sites'))
      config = GPTConfig(**old['config'], activation_sites=sites)
      old['config'] = json.loads(json.dumps(dataclasses.asdict(config)))
      assert old == new
    else:
      np.testing.assert_allclose(first[array], second[array], 0, rounding)


def _assert_means_causally(program, inputs, expression, evaluate):
  decoded = program.decode(
    program.run(inputs.tokens, inputs.lengths), inputs.lengths
  )
  for sequence, found in zip(_sequences(program, inputs), decoded, strict=True):
    for value, expected in zip(
      found, evaluate(expression, sequence), strict=True
    ):
      if expected is not None:  # None: nothing was selected
        np.testing.assert_allclose(value, float(expected), atol=1e-5)
