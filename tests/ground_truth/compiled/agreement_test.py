"""A compiled model that is not its program is refused, by the first input."""

import numpy as np
import pytest

from sparse_interp.ground_truth.compiled import agreement
from sparse_interp.ground_truth.compiled.tracr import compile_program
from tests.ground_truth.compiled.compiled_programs import program_of


def _check(name, meaning, change=lambda outputs: outputs):
  program = program_of(name)
  inputs = agreement.inputs_to_compare(
    program.vocab, program.max_length, program.unique_tokens
  )
  outputs = np.asarray(program.run(inputs.tokens, inputs.lengths))
  agreement.check(program, inputs, change(outputs), meaning)


def _hist(sequence):
  return [sequence.count(token) for token in sequence]


def _same(rasp):
  return rasp.Map(lambda x: x, rasp.tokens)


def _shares(sequence):
  return [sequence[:i].count('x') / i for i in range(1, len(sequence) + 1)]


@pytest.mark.slow
def test_the_program_itself_is_taken():
  _check('hist', _hist)
  _check('frac_prevs', _shares)
  _check('sort_unique', sorted)


@pytest.mark.parametrize(
  ('name', 'meaning', 'found'),
  [
    # One input of 363 that is other, and it is named.
    (
      'hist',
      lambda s: [1, 1, 2] if s == ['b', 'c', 'c'] else _hist(s),
      r"got 1 at place 2 of \['b', 'c', 'c'\], where the compiled model has 2",
    ),
    (
      'hist',
      lambda s: [None if s == ['c'] * 5 else n for n in _hist(s)],
      r"got None at place 1 of \['c', 'c', 'c', 'c', 'c'\]",
    ),
    ('hist', lambda s: [str(n) for n in _hist(s)], r"got '1' at place 1 of"),
    ('hist', lambda s: _hist(s)[1:], r'got 0 values on'),
    ('hist', lambda s: [1 // (n - 1) for n in _hist(s)], 'ZeroDivisionError'),
    ('frac_prevs', lambda s: [x + 1e-3 for x in _shares(s)], 'got 0.001 at'),
    ('frac_prevs', lambda s: [float('nan') for _ in s], 'finite numbers'),
    ('frac_prevs', lambda s: ['x' for _ in s], 'finite numbers'),
  ],
)
def test_a_program_that_is_another_is_refused_in_one_line(name, meaning, found):
  with pytest.raises(ValueError, match=found) as error:
    _check(name, meaning)
  assert '\n' not in str(error.value)
  assert f'program {name} must be one that its' in str(error.value)


def test_a_model_that_is_not_the_compilers_is_refused():
  # By which argmax does not change, but the model is another.
  with pytest.raises(ValueError, match="those of the compiler's own model"):
    _check('hist', _hist, lambda outputs: outputs * 1.01)


def test_many_inputs_are_sampled():
  for length, count in ((5, 4096), (40, 655), (1000, 64)):
    inputs = agreement.inputs_to_compare(
      (*range(9), 'compiler_bos'), length, False
    )
    assert len(inputs.lengths) == count
    again = agreement.inputs_to_compare(
      (*range(9), 'compiler_bos'), length, False
    )
    np.testing.assert_array_equal(inputs.tokens, again.tokens)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('build', 'vocab', 'found'),
  [
    (lambda rasp: rasp.tokens, {1}, r"that computes something, got 'tokens'"),
    (lambda rasp: rasp.indices, {1}, r"that computes something, got 'indi"),
    (
      lambda rasp: rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.EQ),
      {1},
      'that computes something',
    ),
    (lambda rasp: 5, {1}, r"that computes something, got '5'"),
    (_same, set(), 'vocab must have a token'),
    (_same, {1, None}, 'vocab must leave None'),
    (_same, {1, 'compiler_bos'}, r"leave 'compiler_bos'"),
    (lambda rasp: rasp.Map(lambda x: {}[x], rasp.tokens), {1}, 'KeyError'),
    (
      lambda rasp: _same(rasp) + rasp.numerical(_same(rasp)),
      {1},
      'that Tracr can compile',
    ),
    # Labels that are one text for two values.
    (_same, {1, '1'}, r"got two of '.*:1', as 1 and '1' would be"),
    (
      lambda rasp: rasp.Map({1: 1, 2: '1'}.get, rasp.tokens),
      {1, 2},
      r'got two of .*:1',
    ),
    # What RASP has no value for, and the model has.
    (
      lambda rasp: rasp.Map(lambda x: None if x == 2 else x, rasp.tokens),
      {1, 2},
      r'got None at place 1 of \[2\]',
    ),
    (
      lambda rasp: rasp.Aggregate(
        rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.FALSE),
        rasp.tokens,
      ),
      {1, 2},
      r'got None at place 1 of \[1\]',
    ),
  ],
)
def test_what_a_model_cannot_equal_is_refused_in_one_line(build, vocab, found):
  from tracr.rasp import rasp

  with pytest.raises(ValueError, match=found) as error:
    compile_program(build(rasp), vocab, 2)
  assert '\n' not in str(error.value)
