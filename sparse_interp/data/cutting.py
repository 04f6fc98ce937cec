"""The rule by which text is cut into pieces before anything is merged.

A rule is what files of `tokenizers` call a pre-tokenizer: steps, the last of
which writes each piece in bytes.
"""

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

# That of tinypython_2k.
SPLIT_PATTERN = (
  r'[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*'
  r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
GPT2_PATTERN = (
  r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_NAMES = {SPLIT_PATTERN: "tinypython_2k's", GPT2_PATTERN: "GPT-2's"}


def by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
  """The rule that makes each match of a pattern a piece."""
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def steps(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """The steps of a rule, in order, as its file has them."""
  if rule.get('type') != 'Sequence':
    return [rule]
  return [step for part in rule['pretokenizers'] for step in steps(part)]


def pattern_of(rule: Mapping[str, Any]) -> str | None:
  """The pattern whose matches are the pieces; None if the rule is another."""
  match steps(rule):
    case [{'type': 'ByteLevel', 'use_regex': True}]:
      return GPT2_PATTERN  # the library's own, in other letters
    case [
      {
        'type': 'Split',
        'pattern': {'Regex': pattern},
        'behavior': 'Isolated',
        'invert': False,
      },
      {'type': 'ByteLevel', 'use_regex': False},
    ]:
      return pattern
  return None


def describe(rule: Mapping[str, Any]) -> str:
  """A rule in words, with its patterns."""
  pattern = pattern_of(rule)
  if pattern is not None:
    return f'by {_NAMES.get(pattern, "its own")} pattern {pattern}'
  said = [_describe_step(step) for step in steps(rule)]
  return ', then '.join(filter(None, said)) or 'not at all'


def _describe_step(step: Mapping[str, Any]) -> str:
  if step['type'] == 'ByteLevel':
    regex = step.get('use_regex', True)
    return f"by GPT-2's pattern {GPT2_PATTERN}" if regex else ''
  if step['type'] == 'Split':
    ((kind, text),) = step['pattern'].items()
    kind = 'pattern' if kind == 'Regex' else 'string'
    outside = ' (between its matches)' if step['invert'] else ''
    return f'by {kind} {text}{outside}, {step["behavior"]}'
  if step['type'] == 'Digits':
    one = step.get('individual_digits')
    return 'at every digit' if one else 'at runs of digits'
  return f'at punctuation, {step["behavior"]}'
