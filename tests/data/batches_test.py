"""Claims about the order, the mixture, the shares and the state of batches."""

import itertools
import json

import numpy as np
import pytest

from sparse_interp.data import batches

_LENGTH = 8


def _stream(windows: int, first: int = 0) -> np.ndarray:
  """A stream in which every token tells its place, with a rest at the end."""
  return np.arange(first, first + windows * _LENGTH + 3, dtype=np.uint16)


def _make(sources, weights, batch_size=4, seed=0, **options):
  return batches.make_batches(
    sources, weights, batch_size, _LENGTH, seed, **options
  )


def _take(dataset, count: int) -> np.ndarray:
  return np.stack(list(itertools.islice(dataset, count)))


def _windows(dataset, count: int) -> list[int]:
  """First tokens of the windows in `count` batches, in windows."""
  return (_take(dataset, count)[:, :, 0].ravel() // _LENGTH).tolist()


def test_rows_are_aligned_windows_of_consecutive_tokens():
  found = _take(_make([_stream(50)], [1]), 10)
  assert found.shape == (10, 4, _LENGTH)
  assert found.dtype == np.int32
  starts = found[..., :1]
  np.testing.assert_array_equal(found, starts + np.arange(_LENGTH))
  assert (starts % _LENGTH == 0).all()


def test_every_pass_has_each_window_once_in_another_order():
  windows = _windows(_make([_stream(48)], [1.0]), 36)
  passes = [windows[:48], windows[48:96], windows[96:]]
  for one in passes:
    assert sorted(one) == list(range(48))
  assert len(set(map(tuple, passes))) == 3
  assert tuple(range(48)) not in set(map(tuple, passes))


def test_order_follows_from_the_seed():
  orders = [_windows(_make([_stream(48)], [1], seed=s), 24) for s in (7, 7, 8)]
  assert orders[0] == orders[1] != orders[2]
  # The second pass of a seed is not the first of the next one.
  assert orders[0][48:] != orders[2][:48]


def test_corpora_of_equal_length_are_shuffled_apart():
  sources = [_stream(48), _stream(48, first=10_000)]
  windows = np.array(_windows(_make(sources, [1, 1]), 24))
  is_first = windows < 1250  # 10,000 tokens are 1250 windows
  assert is_first.sum() == 48
  assert (windows[is_first] != windows[~is_first] - 1250).any()


@pytest.mark.parametrize('weights', [[3, 1], [0.1, 0.7], [1, 1]])
def test_corpora_are_mixed_by_weight(weights):
  # Few windows would do, but grain is slow to shuffle a handful.
  sources = [_stream(900), _stream(999, first=10_000)]
  found = _take(_make(sources, weights, batch_size=16), 100)
  share = (found[..., 0] < 10_000).mean()
  assert abs(share - weights[0] / sum(weights)) < 0.01
  # Every stretch is mixed, not only the whole.
  shares = (found[..., 0] < 10_000).mean(axis=1)
  assert abs(shares - share).max() < 1 / 8


@pytest.mark.parametrize('process_count', [1, 2, 4, 8])
def test_global_batches_are_the_same_for_any_number_of_processes(
  process_count,
):
  sources, weights = [_stream(90), _stream(99, first=10_000)], [2, 1]
  expected = _take(_make(sources, weights, batch_size=8), 30)
  shares = [
    _take(
      _make(
        sources,
        weights,
        batch_size=8,
        process_index=index,
        process_count=process_count,
      ),
      30,
    )
    for index in range(process_count)
  ]
  assert {share.shape[1] for share in shares} == {8 // process_count}
  np.testing.assert_array_equal(np.concatenate(shares, axis=1), expected)


@pytest.mark.parametrize('sources', [1, 2, 3])
def test_batches_of_one_row_are_the_rows_of_larger_ones(sources):
  streams = [_stream(90 + i, first=10_000 * i) for i in range(sources)]
  weights = [0.8, 0.15, 0.05][:sources]
  rows = _take(_make(streams, weights, batch_size=1), 200)
  assert rows.shape == (200, 1, _LENGTH)
  larger = _take(_make(streams, weights, batch_size=4), 50)
  np.testing.assert_array_equal(rows, larger.reshape(200, 1, _LENGTH))


def test_a_batch_of_one_row_is_restored_exactly():
  expected = _take(_make([_stream(90)], [1], batch_size=1), 120)
  iterator = iter(_make([_stream(90)], [1], batch_size=1))
  for _ in range(100):  # into the second pass
    next(iterator)
  restored = iter(_make([_stream(90)], [1], batch_size=1))
  restored.set_state(json.loads(json.dumps(iterator.get_state())))
  np.testing.assert_array_equal(_take(restored, 20), expected[100:])


def test_one_row_of_validation_is_enough():
  found = batches.validation_batches([_stream(5)], [1], 1, _LENGTH, 3)
  assert [rows.shape for rows in found] == [(1, _LENGTH)] * 3


@pytest.mark.parametrize('process_count', [1, 2])
def test_restored_iterator_continues_exactly(process_count):
  def make():
    return _make(
      [_stream(90), _stream(99, first=10_000)],
      [2, 1],
      process_index=process_count - 1,
      process_count=process_count,
    )

  expected = _take(make(), 60)
  iterator = iter(make())
  for _ in range(35):  # into the second pass, with batches read ahead
    next(iterator)
  state = json.dumps(iterator.get_state())
  next(iterator)  # the state is a value, not a view of the iterator
  restored = iter(make())
  next(restored)
  restored.set_state(json.loads(state))
  np.testing.assert_array_equal(_take(restored, 25), expected[35:])
  iterator.set_state(json.loads(state))
  np.testing.assert_array_equal(_take(iterator, 25), expected[35:])


def test_validation_is_finite_and_the_same_for_all():
  sources, weights = [_stream(100), _stream(90, first=10_000)], [1, 1]
  found = batches.validation_batches(sources, weights, 8, _LENGTH, 5)
  assert len(found) == 5
  rows = np.concatenate(found)
  assert len(np.unique(rows[:, 0])) == 40
  assert ((rows[:, 0] < 10_000).mean()) == 0.5
  again = batches.validation_batches(sources, weights, 8, _LENGTH, 5)
  np.testing.assert_array_equal(found, again)
  shares = [
    batches.validation_batches(
      sources, weights, 8, _LENGTH, 5, process_index=i, process_count=2
    )
    for i in range(2)
  ]
  np.testing.assert_array_equal(np.concatenate(shares, axis=1), found)


def test_short_validation_is_repeated_evenly():
  found = batches.validation_batches([_stream(3)], [1], 6, _LENGTH, 2)
  _, counts = np.unique(np.stack(found)[..., 0], return_counts=True)
  assert counts.tolist() == [4, 4, 4]


def test_corpus_shorter_than_a_context_is_refused_by_name():
  short = np.zeros(_LENGTH - 1, np.uint16)
  for names, name in ((['long', 'stdlib'], 'stdlib'), (None, 'corpus 1')):
    with pytest.raises(
      ValueError, match=f'data.corpora must .* 8 tokens, got 7 in {name};'
    ):
      _make([_stream(2), short], [1, 1], names=names)
  with pytest.raises(ValueError, match=r'data\.validation_fraction'):
    batches.validation_batches([short], [1], 4, _LENGTH, 1)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'weights': [1]}, r'data\.weights must be .* 2 corpora, got \[1\];'),
    ({'weights': [1, 0]}, r'data\.weights must be .*got \[1, 0\];'),
    ({'weights': [], 'sources': []}, r'data\.weights must be .*got \[\];'),
    ({'length': 1}, r'data\.length must be at least 2.*got 1;'),
    ({'seed': -1}, 'seed must be at least 0, got -1;'),
    ({'batch_size': 0}, r'data\.batch_size must be .*got 0;'),
    ({'process_count': 3}, r'data\.batch_size must .* processes 3, got 4;'),
    ({'process_index': 1}, r'process_index must be in \[0, 1\), got 1;'),
  ],
)
def test_errors_name_field_value_and_remedy(arguments, message):
  defaults = {
    'sources': [_stream(9), _stream(9)],
    'weights': [1, 1],
    'batch_size': 4,
    'length': _LENGTH,
    'seed': 0,
  }
  with pytest.raises(ValueError, match=message):
    batches.make_batches(**{**defaults, **arguments})


def test_number_of_validation_batches_is_checked():
  with pytest.raises(ValueError, match=r'data\.validation_batches .*got 0;'):
    batches.validation_batches([_stream(9)], [1], 4, _LENGTH, 0)
