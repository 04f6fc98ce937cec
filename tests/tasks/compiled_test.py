"""Inputs of compiled programs are distinct, padded, and split by a hash."""

import numpy as np
import pytest

from sparse_interp.tasks.compiled import BOS, PAD, draw_inputs, in_test_split

_SMALL = ('a', 'b', 'c', BOS, PAD)  # 3 + 9 + 27 + 81 inputs up to length 4
_LARGE = (BOS, *'abcdefghij', PAD)


def _rows(inputs):
  return [
    tuple(row[1:length].tolist()) for row, length in zip(*inputs, strict=True)
  ]


def test_few_inputs_are_all_returned_once_and_padded():
  inputs = draw_inputs(_SMALL, 4, 1000, seed=0)
  assert inputs.tokens.shape == (120, 5)
  assert inputs.tokens.dtype == inputs.lengths.dtype == np.int32
  assert len(set(_rows(inputs))) == 120
  assert np.all(inputs.tokens[:, 0] == 3)
  behind = np.arange(5) >= inputs.lengths[:, None]
  assert np.all((inputs.tokens == 4) == behind)


@pytest.mark.parametrize('vocab', [_SMALL, _LARGE])
def test_drawn_inputs_have_every_length_alike(vocab):
  longest = 4 if vocab is _SMALL else 8
  inputs = draw_inputs(vocab, longest, 80, seed=1)
  assert inputs.tokens.shape == (80, longest + 1)
  counts = np.bincount(inputs.lengths - 1, minlength=longest + 1)[1:]
  # Of the shortest, there may be no more than these.
  assert counts[1:].min() >= (4 if vocab is _LARGE else 9)
  assert counts.max() < 60


@pytest.mark.parametrize('vocab', [_SMALL, _LARGE])
def test_splits_are_disjoint_and_complete(vocab):
  train = draw_inputs(vocab, 6, 500, seed=2, split='train')
  test = draw_inputs(vocab, 6, 500, seed=2, split='test')
  assert not set(_rows(train)) & set(_rows(test))
  assert all(in_test_split(row) for row in _rows(test))
  few = [draw_inputs(_SMALL, 4, 1000, 0, split=s) for s in ('train', 'test')]
  assert sum(len(part.lengths) for part in few) == 120


def test_tokens_may_be_unique_and_lengths_chosen():
  inputs = draw_inputs(_SMALL, 5, 1000, seed=0, unique=True)
  assert len(_rows(inputs)) == 3 + 6 + 6
  assert all(len(set(row)) == len(row) for row in _rows(inputs))
  assert inputs.tokens.shape[1] == 6
  chosen = draw_inputs(_LARGE, 8, 50, seed=0, lengths=(2, 7), unique=True)
  assert set(chosen.lengths.tolist()) == {3, 8}
  assert all(len(set(row)) == len(row) for row in _rows(chosen))


def test_a_draw_depends_on_its_seed_alone():
  first, again, other = (
    draw_inputs(_LARGE, 8, 20, seed=seed) for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(first.tokens, again.tokens)
  assert not np.array_equal(first.tokens, other.tokens)


@pytest.mark.parametrize(
  ('change', 'field'),
  [
    ({'vocab': ('a', 'b')}, 'vocab'),
    ({'split': 'dev'}, 'split'),
    ({'lengths': (0,)}, 'lengths'),
    ({'lengths': ()}, 'lengths'),
    ({'lengths': (9,)}, 'lengths'),
    ({'vocab': ('a', BOS), 'max_length': 1, 'split': 'test'}, 'split'),
  ],
)
def test_a_wrong_draw_is_refused_in_one_line(change, field):
  arguments = {'vocab': _SMALL, 'max_length': 4, 'count': 5, 'seed': 0}
  with pytest.raises(ValueError, match=f'^{field} must') as error:
    draw_inputs(**{**arguments, **change})
  assert '\n' not in str(error.value)
