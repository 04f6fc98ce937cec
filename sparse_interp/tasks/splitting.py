"""Which pairs go to training and which to tests, so that no prompt is in both.

Pairs that share a prompt hang together, over any number of pairs between; what
hangs together goes to one side. Where nobody has said which, a hash says so: of
the prompt that comes first in the alphabet of bytes, so that neither the order
of the pairs nor what else there is plays a part.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

SPLITS = ('train', 'test')

# One in so many groups, by hash, is for tests.
TEST_EVERY = 4


class Group(NamedTuple):
  """Pairs that hang together by their prompts.

  Attributes:
    members: their indices, ascending.
    split: 'train' or 'test'.
  """

  members: tuple[int, ...]
  split: str


def split_by_hash(prompt: str) -> str:
  """The split that a prompt belongs to, where nothing else decides."""
  digest = hashlib.blake2b(prompt.encode(), digest_size=4).digest()
  is_test = int.from_bytes(digest, 'big') % TEST_EVERY == 0
  return 'test' if is_test else 'train'


def split_pairs(
  prompts: Sequence[tuple[str, str]], given: Sequence[str | None]
) -> list[Group]:
  """Parts pairs into groups that share no prompt, each with its split.

  Args:
    prompts: both prompts of every pair.
    given: 'train' or 'test' where that was said, None where not; a pair without
      one follows those that it shares a prompt with.

  Returns:
    The groups, by their first member.

  Raises:
    ValueError: what was given puts a prompt, or pairs that hang together, on
      both sides. The message says how many, as the end of a sentence.
  """
  sides: dict[str, set[str]] = {}
  for pair, split in zip(prompts, given, strict=True):
    for prompt in pair:
      sides.setdefault(prompt, set()).update({split} if split else ())
  if both := sum(len(found) > 1 for found in sides.values()):
    raise ValueError(
      f'{both:,} prompt{"s" * (both > 1)} in both; give every pair of a prompt '
      'the same split, or leave the splits out'
    )
  components = _components(prompts)
  asked = [{s for i in members if (s := given[i])} for members in components]
  mixed = [i for i, found in enumerate(asked) if len(found) > 1]
  if mixed:
    between = sum(given[i] is None for k in mixed for i in components[k])
    raise ValueError(
      f'{between:,} without a split that share prompts with pairs of both; '
      'give these a split, or leave all splits out'
    )
  groups = []
  for members, found in zip(components, asked, strict=True):
    prompts_of = [prompt for i in members for prompt in prompts[i]]
    first = min(prompts_of, key=str.encode)
    groups.append(Group(members, next(iter(found), split_by_hash(first))))
  return groups


def _components(prompts: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
  """Indices of pairs that hang together, ascending, by the first of each."""
  above: dict[str, str] = {}

  def top(prompt):
    above.setdefault(prompt, prompt)
    while above[prompt] != prompt:
      above[prompt] = above[above[prompt]]
      prompt = above[prompt]
    return prompt

  for one, other in prompts:
    above[top(one)] = top(other)
  found: dict[str, list[int]] = {}
  for index, (one, _) in enumerate(prompts):
    found.setdefault(top(one), []).append(index)
  return [tuple(members) for members in found.values()]
