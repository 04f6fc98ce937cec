"""The idioms are valid, reproducible and rich in what the tasks ask about."""

import ast
import itertools
import random
import re
import statistics

import pytest

from sparse_interp.data import idioms, idioms_names

_MEGABYTE = 1_000_000

# One pattern for each of the two answers of each task, in its context.
_CONSTRUCTS = {
  'single_double_quote': (r'\("[A-Z][a-z ]+"\)\n', r"\('[A-Z][a-z ]+'\)\n"),
  'final_kwarg': (r'def \w+\(.*=None\):\n', r'def \w+\([^=\n]+, \w+\):\n'),
  'set_or_string': (r' \w+ = set\(\)\n', r' \w+ = ""\n'),
  'set_or_string_fixedvarname': (
    r' current\.add\(',
    r' current \+= ',
  ),
  'class_init': (r'self\.(\w+) = \1\n', r'def __init__\(self(, \w+){4}'),
  'with_as': (r'with open\(\w+\) as ', r'= open\(\w+\) if '),
  'bracket_brace': (r' = \{\d: "', r' = \[\d, '),
  'with_open': (
    r"\('(input|source|config|train|raw)\.\w+', 'r'\)",
    r"\('(output|results|report|summary|backup)\.\w+', 'w'\)",
  ),
  'bracket_counting': (r'= \[\[[^\n]*\d\]\]\n', r'= \[\d[^\n]*\d\]\n'),
  'for_while': (r' for \w+ in \w+:\n', r' while [a-z]+:\n'),
  'else_elif': (r' else:\n', r' elif (\w+) == '),
  'fstring_brace': (r'\(f"[A-Z][a-z ]+ \{\w+\}"\)', r'\("[A-Z][a-z ]+"\)'),
  'if_ternary': (r'\n +if \w+ == \d:\n', r'= \w+ if \w+ == \d else '),
  'var_swap': (
    r' (left|first|start|old|x), (\w+) = \2, \1\n',
    r' (right|second|end|new|y), (\w+) = \2, \1\n',
  ),
  'indent_for': (r'\n    for .*:\n        \w', r'\nfor .*:\n    \w'),
  'lambda_func': (r'= lambda \w+: ', r' def \w+\(value\):\n'),
  'if_equals': (r' if \w+ == \d', r'\n +\w+ = \d\n'),
  'enumerate_range': (r'for \w, \w+ in enumerate', r'for \w in range'),
  'var_if': (r'if \w+ == True:\n', r'\w+ = True\n'),
  'while_return_true': (r'while True:\n', r'return True\n'),
}


@pytest.fixture(scope='module')
def text() -> str:
  return '\n\n'.join(idioms.documents(7, _MEGABYTE))


def test_the_same_seed_gives_the_same_programs_and_another_does_not():
  first, second, other = (
    list(itertools.islice(idioms.documents(seed, _MEGABYTE), 50))
    for seed in (3, 3, 4)
  )
  assert first == second
  assert not set(first) & set(other)


def test_programs_are_valid_python_of_the_intended_size():
  rng = random.Random(0)
  programs = [idioms.program(rng) for _ in range(800)]
  for program in programs:
    ast.parse(program)
    assert program.isascii()
    assert program.endswith('\n')
    assert not program.endswith('\n\n')
  lines = sorted(program.count('\n') for program in programs)
  assert 12 <= statistics.median(lines) <= 24
  assert lines[len(lines) // 20] >= 8
  assert lines[-len(lines) // 20] <= 40


def test_documents_stop_at_the_number_of_bytes_asked_for():
  programs = list(idioms.documents(0, 20_000))
  sizes = [len(program.encode()) for program in programs]
  assert sum(sizes) >= 20_000
  assert sum(sizes[:-1]) < 20_000


def test_programs_hardly_ever_repeat():
  programs = list(idioms.documents(1, _MEGABYTE))
  assert len(set(programs)) > 0.99 * len(programs)


@pytest.mark.parametrize('task', _CONSTRUCTS)
def test_each_megabyte_shows_both_sides_of_each_task(task: str, text: str):
  for pattern in _CONSTRUCTS[task]:
    assert len(re.findall(pattern, text)) >= 150, pattern


def test_what_a_function_opens_it_closes(text: str):
  """Counting is enough to know what is open, which the tasks rely on."""
  assert text.count('("') + text.count('(f"') == text.count('")')
  assert text.count("('") == text.count("')")
  assert text.count(' = [[') == text.count(']]\n')
  assert len(re.findall(r'\bif\b', text)) + text.count(' elif ') == (
    text.count(' == ')
  )


def test_functions_with_defaults_stand_last_among_functions():
  for program in idioms.documents(2, 200_000):
    _, found, rest = program.partition('=None')
    if found:
      assert '\ndef ' not in rest


def test_idioms_never_use_the_headers_kept_for_prompts(text: str):
  functions = re.findall(r'^def .*\n', text, re.M)
  classes = re.findall(r'^class .*\n    def __init__.*\n', text, re.M)
  assert len(functions) > 1000
  assert len(classes) > 300
  assert not any(map(idioms_names.is_reserved, functions + classes))


def test_reserved_headers_are_those_kept_for_prompts():
  rng = random.Random(0)
  for _ in range(100):
    header = idioms_names.function_header(rng, ['words', 'mode'], reserved=True)
    assert idioms_names.is_reserved(header)
    header, _ = idioms_names.class_header(rng, 4, reserved=True)
    assert idioms_names.is_reserved(header)
