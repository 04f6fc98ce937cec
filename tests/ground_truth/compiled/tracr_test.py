"""Compiled programs run as Tracr's own models do, also from a file."""

import dataclasses
import json

import numpy as np
import pytest

from sparse_interp.ground_truth.compiled.programs import (
  PROGRAMS,
  compile_published,
)
from sparse_interp.ground_truth.compiled.storage import load, save
from sparse_interp.ground_truth.compiled.tracr import convert, reference_outputs
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import node_sites
from tests.ground_truth.compiled.compiled_programs import (
  DIRECTORY,
  assert_same_outputs,
  program_of,
)

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
  program = program_of(name)
  assert_same_outputs(program, program.examples, program.examples.outputs)
  inputs = program.draw(400, seed=1)
  _assert_means(program, inputs, MEANINGS[name])
  again = program.encode(_sequences(program, inputs))
  np.testing.assert_array_equal(again.tokens, inputs.tokens)


def test_nodes_are_named_by_what_they_do():
  reverse, balance = program_of('reverse'), program_of('pair_balance')
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


def test_a_program_survives_a_file(tmp_path):
  program = program_of('hist')
  save(program, tmp_path / 'again.npz')
  first, second = (
    np.load(path) for path in (DIRECTORY / 'hist.npz', tmp_path / 'again.npz')
  )
  assert first.files == second.files
  for name in set(first.files) - {'description'}:
    np.testing.assert_array_equal(first[name], second[name])
  old, new = (json.loads(str(file['description'])) for file in (first, second))
  assert new == old
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
    program_of('hist').encode([['a', 'q']])
  with pytest.raises(ValueError, match='nonsense'):
    compile_published('nonsense')


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
  if causal and name == 'sort_unique':  # the first may find nothing before it
    with pytest.raises(ValueError, match='got None at place'):
      convert(assembled, expression, name, published.unique_tokens)
    return
  program = convert(assembled, expression, name, published.unique_tokens)
  inputs = program.draw(400, seed=2)
  assert_same_outputs(
    program, inputs, reference_outputs(assembled, expression, inputs)
  )
  if causal:
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
      for description in (old, new):
        # Outputs are rounded elsewhere, and the hashes of them differ.
        del description['arrays']['examples/outputs'], description['sha256']
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
