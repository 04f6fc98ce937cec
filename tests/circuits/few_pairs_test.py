"""Few pairs are shared out so that every use gets some."""

import hypothesis
import hypothesis.strategies as st

from sparse_interp.circuits.few_pairs import for_pairs
from sparse_interp.circuits.prune_config import PruneConfig


@hypothesis.given(
  st.integers(4, 2000),
  st.integers(1, 500),
  st.integers(0, 500),
  st.integers(1, 64),
)
def test_every_use_gets_pairs_and_gates_get_half(
  pairs, selection, holdout, batch
):
  asked = PruneConfig(
    selection_pairs=selection, holdout_pairs=holdout, batch_pairs=batch
  )
  found = for_pairs(asked, pairs)
  kept = found.selection_pairs + found.holdout_pairs
  assert found.selection_pairs >= 1
  assert kept <= pairs / 2
  assert 1 <= found.batch_pairs <= min(batch, pairs - kept)
  assert found.selection_pairs <= selection
  assert found.holdout_pairs <= holdout


def test_what_leaves_half_to_the_gates_stays():
  asked = PruneConfig()
  assert for_pairs(asked, 768) is asked
  assert for_pairs(asked, 640) is asked
  found = for_pairs(asked, 300)
  assert (found.selection_pairs, found.holdout_pairs) == (60, 90)
  assert found.batch_pairs == asked.batch_pairs
