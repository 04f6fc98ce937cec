"""What holds for each of the twenty tasks."""

import ast
import itertools
import re
import statistics

import pytest

from sparse_interp.data import corpora, idioms, idioms_names
from sparse_interp.tasks import TASKS
from sparse_interp.tasks.encoding import encode_pair
from sparse_interp.tasks.pairs import SPLITS, Pair, make_pairs, opening

_LENGTH = 128

# What the two answers start with, as tokens; None where it varies.
_ANSWERS = {
  'single_double_quote': ('")', "')"),
  'final_kwarg': ('=None', '):'),
  'set_or_string': ('.add', ' +='),
  'set_or_string_fixedvarname': ('.add', ' +='),
  'class_init': (None, None),
  'with_as': (' as', ' if'),
  'bracket_brace': (':', ','),
  'with_open': ('r', 'w'),
  'bracket_counting': (']]', ']'),
  'for_while': (' in', ':'),
  'else_elif': (':', None),
  'fstring_brace': (' {', '")'),
  'if_ternary': (':', ' else'),
  'var_swap': (None, None),
  'indent_for': ('       ', '   '),
  'lambda_func': (':', '(value'),
  'if_equals': (' ==', ' ='),
  'enumerate_range': (' enumerate', ' range'),
  'var_if': (':', ''),
  'while_return_true': (':', ''),
}

# The one place where the prompts of a pair differ, as the pattern of the words
# there in the first and, after a bar, in the second.
_DIFFERENCES = {
  'single_double_quote': r'"\|\'',
  'set_or_string': r'set\(\)\|""',
  'set_or_string_fixedvarname': r'set\(\)\|""',
  'class_init': r'[a-z]+\|[a-z]+',
  'with_as': r'with\|[a-z]+ =',
  'with_open': r'[a-z]+\|[a-z]+',
  'for_while': r'for\|while',
  'else_elif': r'else\|elif',
  'fstring_brace': r'f\|',
  'if_ternary': r'\|[a-z]+ = [a-z]+ ',
  'var_swap': r'(\w+), (\w+) = \2\|\2, \1 = \1',
  'indent_for': r' {4}\|\n\n',
  'lambda_func': r'[a-z]+ = lambda\|def',
  'if_equals': r'if \|',
  'enumerate_range': r', [a-z]+\|',
  'var_if': r'if ([a-z]+) =\|\1 ',
  'while_return_true': r'while\|return',
}
# For the others, what makes the last line of the first that of the second.
_REWRITES = {
  'final_kwarg': ((r'=None', ''),),
  'bracket_brace': ((r'\{', '['), (r': "\w+"', '')),
  'bracket_counting': ((r'\[\[', '['), (r'\], \[', ', ')),
}

# The rest of a line and of a block, one of which makes a program of a prompt
# and its answer.
_ENDS = (
  '',
  ':\n{pad}    pass\n',
  '\n',
  '{pad}    pass\n',
  ' 3:\n{pad}    pass\n',
  ' as f:\n{pad}    pass\n',
  ' == 3:\n{pad}    pass\n',
  '}}\n',
  ']\n',
)


def _prompts(pair: Pair) -> tuple[str, str]:
  return pair.prompt_a, pair.prompt_b


def _sample(pairs: dict[str, list[Pair]], count: int) -> list[Pair]:
  return [pair for split in SPLITS for pair in pairs[split][:count]]


def _agreement(first: list[str], second: list[str]) -> int:
  """Number of words at the beginning that are the same in both."""
  same = itertools.takewhile(
    lambda words: words[0] == words[1], zip(first, second, strict=False)
  )
  return len(list(same))


def _is_program(text: str) -> bool:
  try:
    ast.parse(text)
  except SyntaxError:
    return False
  return True


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_the_splits_share_no_prompt_and_no_opening(name: str, some_pairs):
  _check_splits(some_pairs[name], 100)


def _check_splits(pairs: dict[str, list[Pair]], count: int):
  prompts = {
    split: {prompt for pair in pairs[split] for prompt in _prompts(pair)}
    for split in SPLITS
  }
  assert {len(texts) for texts in prompts.values()} == {2 * count}
  train, test = (set(map(opening, prompts[split])) for split in SPLITS)
  assert not train & test


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_prompts_are_programs_of_several_lines(
  name: str, some_pairs, tokenizer
):
  pairs = _sample(some_pairs[name], 100)
  encoded = [encode_pair(pair, tokenizer, _LENGTH) for pair in pairs]
  lengths = [len(tokens) for prompts, _ in encoded for tokens in prompts]
  assert 30 <= statistics.median(lengths) <= 55
  assert max(lengths) <= 96
  for pair in pairs:
    assert min(prompt.count('\n') for prompt in _prompts(pair)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_answers_are_the_published_ones_and_differ_in_their_first_token(
  name: str, some_pairs, tokenizer
):
  for pair in _sample(some_pairs[name], 100):
    _, answers = encode_pair(pair, tokenizer, _LENGTH)
    targets = [answer[0] for answer in answers]
    assert targets[0] != targets[1]
    for target, expected in zip(targets, _ANSWERS[name], strict=True):
      token = tokenizer.decode([target])
      assert expected is None or token.rstrip('\n') == expected


@pytest.mark.parametrize('name', TASKS)
def test_a_task_has_two_conditions_that_look_different(name: str, some_pairs):
  conditions = TASKS[name].conditions
  assert len(conditions) == len(set(conditions)) >= 2
  drawn = {pair.condition for pair in some_pairs[name]['test']}
  assert drawn == set(conditions)


@pytest.mark.parametrize('name', _DIFFERENCES)
def test_the_prompts_of_a_pair_differ_in_the_evidence_alone(
  name: str, some_pairs
):
  for pair in _sample(some_pairs[name], 100):
    first, second = (re.findall(r'\w+|\W', text) for text in _prompts(pair))
    start = _agreement(first, second)
    first, second = first[start:], second[start:]
    end = _agreement(first[::-1], second[::-1])
    difference = '|'.join(
      ''.join(words[: len(words) - end]) for words in (first, second)
    )
    assert re.fullmatch(_DIFFERENCES[name], difference)


@pytest.mark.parametrize('name', _REWRITES)
def test_the_last_lines_of_a_pair_say_the_same_in_another_form(
  name: str, some_pairs
):
  for pair in _sample(some_pairs[name], 100):
    first, second = (text.rpartition('\n') for text in _prompts(pair))
    assert first[0] == second[0]
    line = first[2]
    for pattern, replacement in _REWRITES[name]:
      line = re.sub(pattern, replacement, line)
    assert line == second[2] != first[2]


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(TASKS.keys() - {'else_elif'}))
def test_the_last_token_does_not_tell_the_answer(
  name: str, some_pairs, tokenizer
):
  """But for else and elif, where it is the evidence."""
  for pair in _sample(some_pairs[name], 100):
    first, second = encode_pair(pair, tokenizer, _LENGTH)[0]
    assert first[-1] == second[-1]


@pytest.mark.parametrize('name', TASKS)
def test_prompts_go_on_to_programs_with_their_answers(name: str, some_pairs):
  for pair in _sample(some_pairs[name], 25):
    for prompt, answer in (
      (pair.prompt_a, pair.answer_a),
      (pair.prompt_b, pair.answer_b),
    ):
      line = prompt.rstrip('\n').rpartition('\n')[2]
      pad = line[: len(line) - len(line.lstrip())]
      texts = [prompt + answer + end.format(pad=pad) for end in _ENDS]
      assert any(map(_is_program, texts)), prompt + answer


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_no_prompt_stands_in_the_corpora(
  name: str, some_pairs, corpus: str, heads: set[str]
):
  """By its opening for every prompt, and in full for some."""
  for pair in itertools.chain(*some_pairs[name].values()):
    text = opening(pair.prompt_a)
    assert idioms_names.is_reserved(text)
    assert text not in heads
  for pair in _sample(some_pairs[name], 5):
    assert not any(prompt in corpus for prompt in _prompts(pair))


def test_idioms_open_as_prompts_do(heads: set[str]):
  """Else the check above would hold for any prompts."""
  assert (
    sum(text.startswith('class Book:\n    def __in') for text in heads) > 50
  )
  assert sum(text.startswith('def load_data(') for text in heads) > 5


@pytest.fixture(scope='module')
def corpus(library_source: list[str]) -> str:
  return '\0'.join([*idioms.documents(5, 1_000_000), *library_source])


@pytest.fixture(scope='module')
def heads(corpus: str) -> set[str]:
  return _heads(corpus)


def _heads(text: str) -> set[str]:
  """All that stands in a text where a prompt's opening could stand."""
  return set(re.findall(r'\bdef .*\n|\bclass .*\n.*\n', text))


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_each_split_has_two_thousand_pairs_that_stand_in_no_corpus(
  name: str, large_heads: set[str]
):
  pairs = {split: make_pairs(TASKS[name], split, 2000, 1) for split in SPLITS}
  _check_splits(pairs, 2000)
  for pair in itertools.chain(*pairs.values()):
    assert opening(pair.prompt_a) not in large_heads


@pytest.fixture(scope='module')
def large_heads() -> set[str]:
  library = corpora.read_corpus('stdlib', 0)
  return _heads('\0'.join([*idioms.documents(6, 8_000_000), *library]))
