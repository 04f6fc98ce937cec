"""Encoded tasks hold what the tokenizer makes of the pairs."""

import random

import numpy as np
import pytest

from sparse_interp.data.tokenizer import Tokenizer, train_tokenizer
from sparse_interp.tasks import TASKS, encoding
from sparse_interp.tasks.encoding import encode_pair, encode_task
from sparse_interp.tasks.pairs import Pair, Task, make_pairs


@pytest.fixture(scope='module')
def bytes_only() -> Tokenizer:
  """A tokenizer without a merge: every byte is a token."""
  return train_tokenizer(['a'], 257)


def test_arrays_hold_the_prompts_and_the_first_tokens_of_the_answers(tokenizer):
  task = TASKS['if_equals']
  encoded = encode_task(task, tokenizer, 'test', 12, 96, 3)
  assert encoded.name == 'if_equals'
  assert encoded.tokens.shape == (12, 2, 96)
  assert encoded.last.shape == encoded.answers.shape == (12, 2)
  assert {encoded.tokens.dtype, encoded.last.dtype, encoded.answers.dtype} == {
    np.dtype(np.int32)
  }
  for row, pair in enumerate(make_pairs(task, 'test', 12, 3)):
    assert encoded.conditions[row] == pair.condition
    for side, prompt in enumerate((pair.prompt_a, pair.prompt_b)):
      end = int(encoded.last[row, side]) + 1
      tokens = encoded.tokens[row, side].tolist()
      assert tokens[0] == tokenizer.eot
      assert tokenizer.decode(tokens[1:end]) == prompt
      assert not any(tokens[end:])
    assert tokenizer.decode([int(encoded.answers[row, 0])]) == ' =='
    assert tokenizer.decode([int(encoded.answers[row, 1])]) == ' ='


def test_the_answer_is_the_token_that_text_would_have(tokenizer):
  """A bracket and a newline are one token in text, and so in the answer."""
  encoded = encode_task(TASKS['bracket_counting'], tokenizer, 'train', 4, 96, 0)
  assert tokenizer.pieces(encoded.answers[0].tolist()) == tokenizer.pieces(
    [tokenizer.encode(']]\n')[0], tokenizer.encode(']\n')[0]]
  )
  assert len(tokenizer.encode(']]\n')) == 1


def test_encoding_is_a_function_of_the_seed(tokenizer):
  one, same, other = (
    encode_task(TASKS['with_as'], tokenizer, 'train', 8, 96, seed)
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one.tokens, same.tokens)
  assert not np.array_equal(one.tokens, other.tokens)


def test_every_pair_that_was_encoded_is_said(tokenizer):
  said = []
  encode_task(
    *(TASKS['with_as'], tokenizer, 'train', 8, 96, 1),
    progress=lambda *numbers: said.append(numbers),
  )
  assert said == [(i + 1, 8) for i in range(8)]


def test_answers_that_start_alike_are_rejected(bytes_only):
  pair = Pair('if a', ' ==', 'a', ' =', 'one')
  assert encode_pair(pair, bytes_only, 50) == encoding.SAME_ANSWER


def test_an_answer_that_merges_with_the_prompt_is_rejected():
  tokenizer = train_tokenizer(['aab '] * 50, 300)
  pair = Pair('a', 'ab', 'b', 'b', 'one')
  assert encode_pair(pair, tokenizer, 50) == encoding.MERGED
  assert encode_pair(Pair('b', '', 'b', 'a', 'one'), tokenizer, 50) == (
    encoding.MERGED
  )


def test_a_prompt_beyond_the_context_is_rejected(bytes_only):
  pair = Pair('abcd', 'x', 'abc', 'y', 'one')
  assert encode_pair(pair, bytes_only, 4) == encoding.TOO_LONG
  prompts, answers = encode_pair(pair, bytes_only, 5)
  assert [len(prompt) for prompt in prompts] == [5, 4]
  assert [bytes_only.decode(answer) for answer in answers] == ['x', 'y']


def test_rejected_pairs_are_counted_and_replaced(bytes_only):
  def generate(rng: random.Random, condition: str) -> Pair:
    number = rng.randrange(10**6)
    other = rng.choice('xyz')
    return Pair(f'{number}', 'x', f'{number}', other, condition)

  # Both prompts are their own openings, so they must be equal.
  task = Task('example', 'An example.', ('one', 'two'), generate)
  encoded = encode_task(task, bytes_only, 'train', 40, 16, 0)
  assert len(encoded.conditions) == 40
  assert encoded.rejected.keys() == {encoding.SAME_ANSWER}
  assert encoded.rejected[encoding.SAME_ANSWER] > 5


def test_an_unposable_task_says_why(bytes_only):
  with pytest.raises(ValueError, match='if_equals must give 4') as caught:
    encode_task(TASKS['if_equals'], bytes_only, 'test', 4, 1000, 0)
  assert encoding.SAME_ANSWER in str(caught.value)
  assert '\n' not in str(caught.value)


def test_a_context_too_short_for_a_task_says_so(tokenizer):
  with pytest.raises(ValueError, match=encoding.TOO_LONG):
    encode_task(TASKS['with_as'], tokenizer, 'test', 4, 16, 0)
