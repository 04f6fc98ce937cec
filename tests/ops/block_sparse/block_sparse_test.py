"""The layout of block-sparse matrices: nothing lost, both orders alike."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparse_interp.ops.block_sparse import block_sparse

# (K, N), size, capacity; None for as many as there are. Few, since each is
# compiled once.
CASES = (((7, 10), 3, None), ((6, 4), 2, 4), ((3, 5), 8, 1), ((9, 2), 1, 11))

build = functools.partial(jax.jit, static_argnums=(1, 2))(
  block_sparse.from_dense
)
to_dense = jax.jit(block_sparse.to_dense)


def expand(kept, size, shape):
  """A mark for every entry from a mark for every block."""
  entries = np.repeat(np.repeat(kept, size, 0), size, 1)
  return entries[: shape[0], : shape[1]]


@st.composite
def matrices(draw):
  """(matrix, size, capacity, kept blocks)."""
  shape, size, capacity = draw(st.sampled_from(CASES))
  grid = block_sparse.block_grid(shape, size)
  kept = draw(hnp.arrays(bool, grid))
  if capacity is not None:
    surplus = np.flatnonzero(kept)[capacity:]
    kept.reshape(-1)[surplus] = False
  values = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
  return values * expand(kept, size, shape), size, capacity, kept


@pytest.mark.slow
@hypothesis.given(matrices())
def test_a_matrix_comes_back_from_its_blocks(case):
  matrix, size, capacity, kept = case
  w = build(jnp.asarray(matrix), size, capacity)
  np.testing.assert_array_equal(to_dense(w), matrix)
  assert int(w.count) == kept.sum()
  assert float(block_sparse.occupancy(w)) == pytest.approx(kept.mean())
  assert not np.any(w.blocks[kept.sum() :])


@pytest.mark.slow
@hypothesis.given(matrices())
def test_both_walks_visit_each_block_once_and_each_output(case):
  matrix, size, capacity, kept = case
  w = jax.device_get(build(jnp.asarray(matrix), size, capacity))
  slots = [(int(w.rows[s]), int(w.columns[s])) for s in range(kept.sum())]
  # By block columns, then rows: the order of the data.
  wanted = [(int(r), int(c)) for c, r in np.argwhere(kept.T)]
  assert slots == wanted
  by_column = _live(w.by_column)
  assert [(i, o) for o, i, _ in by_column] == wanted
  assert [s for *_, s in by_column] == list(range(kept.sum()))
  by_row = _live(w.by_row)
  assert [[o, i] for o, i, _ in by_row] == np.argwhere(kept).tolist()
  assert [slots[s] for *_, s in by_row] == [(o, i) for o, i, _ in by_row]
  for walk, axis in ((w.by_column, 0), (w.by_row, 1)):
    outputs = kept.shape[1 - axis]
    assert np.all(np.diff(walk.output) >= 0)
    assert set(walk.output.tolist()) == set(range(outputs))
    np.testing.assert_array_equal(walk.counts, kept.sum(axis))
    starts = [walk.output.tolist().index(o) for o in range(outputs)]
    assert walk.starts[:-1].tolist() == starts
    # What is fetched but not used must exist.
    assert 0 <= walk.slot.min() <= walk.slot.max() < w.capacity
    assert 0 <= walk.input.min() <= walk.input.max() < kept.shape[axis]


def _live(walk):
  visits = zip(walk.output, walk.input, walk.slot, walk.live, strict=True)
  return [(int(o), int(i), int(s)) for o, i, s, live in visits if live]


@pytest.mark.slow
def test_another_layout_is_not_compiled_again():
  traced = []

  @jax.jit
  def total(w):
    traced.append(w.size)
    return jnp.sum(block_sparse.to_dense(w))

  for corner in ((0, 0), (5, 5)):
    matrix = np.zeros((6, 6), np.float32)
    matrix[corner] = 3
    w = block_sparse.from_dense(jnp.asarray(matrix), 2, capacity=5)
    assert total(w) == 3
  assert traced == [2]


def test_too_many_blocks_are_refused_or_poison_the_data():
  matrix = jnp.ones((4, 4))
  with pytest.raises(ValueError, match=r'capacity .* got 3 for 4; choose 4'):
    block_sparse.from_dense(matrix, 2, capacity=3)
  w = build(matrix, 2, 3)
  assert np.all(np.isnan(w.blocks))
  for walk in (w.by_column, w.by_row):
    assert (int(walk.live.sum()), int(walk.slot.max())) == (3, 2)


@pytest.mark.parametrize(('size', 'capacity'), [(0, 1), (2, 0)])
def test_a_block_or_a_capacity_of_nothing_is_refused(size, capacity):
  with pytest.raises(ValueError, match='at least 1') as error:
    block_sparse.from_dense(jnp.zeros((4, 4)), size, capacity)
  assert '\n' not in str(error.value)


def test_norms_are_those_of_the_parts():
  matrix = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
  norms = block_sparse.block_norms(jnp.asarray(matrix), 3)
  assert norms.shape == (2, 3)
  for r in range(2):
    for c in range(3):
      part = matrix[3 * r : 3 * r + 3, 3 * c : 3 * c + 3]
      assert float(norms[r, c]) == pytest.approx(np.linalg.norm(part), rel=1e-6)


@pytest.mark.slow
def test_kept_blocks_may_be_named_and_pass_gradients():
  kept = np.array([[True, False], [False, True]])

  def half_square(matrix):
    w = block_sparse.from_dense(matrix, 2, 3, jnp.asarray(kept))
    return jnp.sum(block_sparse.to_dense(w) ** 2) / 2

  matrix = jnp.arange(12.0).reshape(3, 4)
  gradient = jax.grad(half_square)(matrix)
  wanted = matrix * expand(kept, 2, (3, 4))
  np.testing.assert_array_equal(gradient, wanted)
