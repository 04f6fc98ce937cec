"""No prompt is on both sides of a split, whatever the pairs."""

import hypothesis
import hypothesis.strategies as st
import pytest

from sparse_interp.tasks import splitting
from sparse_interp.tasks.splitting import split_by_hash, split_pairs

# Few prompts, so that pairs share them, in characters of one to four bytes.
_PROMPTS = st.sampled_from([f'{c}{n}' for c in 'aé言🙂' for n in range(4)])
_PAIRS = st.lists(st.tuples(_PROMPTS, _PROMPTS), min_size=1, max_size=12)
_GIVEN = st.sampled_from([None, None, 'train', 'test'])


def _sides(prompts, groups):
  """{prompt: splits that it is in}."""
  found = {}
  for group in groups:
    for i in group.members:
      for prompt in prompts[i]:
        found.setdefault(prompt, set()).add(group.split)
  return found


@hypothesis.given(_PAIRS)
def test_every_pair_is_in_one_group_and_every_prompt_in_one_split(prompts):
  groups = split_pairs(prompts, [None] * len(prompts))
  members = [i for group in groups for i in group.members]
  assert sorted(members) == list(range(len(prompts)))
  assert all(len(s) == 1 for s in _sides(prompts, groups).values())
  texts = [{p for i in group.members for p in prompts[i]} for group in groups]
  assert sum(map(len, texts)) == len(set().union(*texts))


@hypothesis.given(_PAIRS, st.randoms(use_true_random=False))
def test_neither_the_order_of_pairs_nor_that_of_sides_matters(prompts, rng):
  before = _sides(prompts, split_pairs(prompts, [None] * len(prompts)))
  turned = [pair[:: rng.choice((1, -1))] for pair in prompts]
  rng.shuffle(turned)
  after = _sides(turned, split_pairs(turned, [None] * len(turned)))
  assert before == after


@hypothesis.given(_PAIRS, st.data())
def test_what_is_given_holds_or_is_refused(prompts, data):
  given = [data.draw(_GIVEN) for _ in prompts]
  # What hangs together, found in another way: by growing sets.
  sets = [set(pair) for pair in prompts]
  for _ in sets:
    for one in sets:
      for other in sets:
        if one & other:
          one |= other
  mixed = any(
    {given[i] for i, pair in enumerate(prompts) if pair[0] in one}
    >= {'train', 'test'}
    for one in sets
  )
  if mixed:
    with pytest.raises(
      ValueError, match=r'^[1-9]\d* (prompts? in both|without)'
    ):
      split_pairs(prompts, given)
    return
  groups = split_pairs(prompts, given)
  for group in groups:
    assert {given[i] for i in group.members} <= {None, group.split}
  assert all(len(s) == 1 for s in _sides(prompts, groups).values())


def test_a_quarter_is_for_tests():
  prompts = [(f'The key {i}', f'The keys {i}') for i in range(4000)]
  groups = split_pairs(prompts, [None] * len(prompts))
  share = sum(group.split == 'test' for group in groups) / len(groups)
  assert 0.22 < share < 0.28
  assert splitting.TEST_EVERY == 4
  assert all(
    group.split == split_by_hash(prompts[group.members[0]][0])
    for group in groups
  )


def test_the_hash_is_that_of_earlier_versions():
  """Otherwise prompts that a circuit was tested on would be trained on."""
  found = ''.join(split_by_hash(f'prompt {i}')[1] for i in range(16))
  assert found == 'rrrerrrrrrrerrer'


def test_prompts_on_both_sides_are_counted():
  prompts = [('a', 'b'), ('a', 'c'), ('b', 'd'), ('e', 'f')]
  with pytest.raises(ValueError, match=r'^2 prompts in both; give every pair'):
    split_pairs(prompts, ['train', 'test', 'test', 'train'])


def test_pairs_between_both_sides_are_counted():
  prompts = [('a', 'b'), ('b', 'c'), ('c', 'd'), ('d', 'e')]
  with pytest.raises(ValueError, match=r'^2 without a split that share'):
    split_pairs(prompts, ['train', None, None, 'test'])
  groups = split_pairs(prompts, ['test', None, None, None])
  assert [tuple(group) for group in groups] == [((0, 1, 2, 3), 'test')]


def test_a_chain_of_any_length_hangs_together():
  prompts = [(f'{i}', f'{i + 1}') for i in range(3000)]
  (group,) = split_pairs(prompts, [None] * 3000)
  assert len(group.members) == 3000
