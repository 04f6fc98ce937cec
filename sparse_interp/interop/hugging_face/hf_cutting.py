"""How a `tokenizer.json` cuts text: which settings keep all of it.

Text may be cut anywhere, as long as nothing is dropped and nothing replaced.
One normalizer is admitted, NFC, because the tokenizer of GPT-NeoX has it:
`Tokenizer` refuses each text that it would change.
"""

import itertools
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from tokenizers import normalizers

from sparse_interp.interop.hugging_face.hf_config import refusal, short

REMEDY = (
  'give another one with --config.tokenizer, or --config.tokenizer=none to '
  'import the model alone'
)
# {step: its settings}
_STEPS = {
  'ByteLevel': {'type', 'add_prefix_space', 'trim_offsets', 'use_regex'},
  'Split': {'type', 'pattern', 'behavior', 'invert'},
  'Digits': {'type', 'individual_digits'},
  'Punctuation': {'type', 'behavior'},
}
_BEHAVIORS = ('Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous')
# A pattern, one piece at a time.
_PIECE = re.compile(
  r'(?P<escape>\\(?:[pP]\{[^}]*\}|.))|(?P<group>\[(?:\\.|[^\]\\])*\])'
  r'|(?P<repeat>[*+]|\{\d*,?\d*\})|(?P<or>\|)|(?P<open>\()|(?P<close>\))'
  r'|(?P<other>.)',
  re.DOTALL,
)
_FEW = re.compile(r'\{(?:\d|\d?,\d)\}')
_NESTED = (('close', 'repeat'), ('repeat', 'repeat'))
# Groups and letters that need not be there.
_OPTIONAL = re.compile(
  r'(?:\((?:\?i?:)?[^()]*\)\?|(?:\\[pP]\{\w+\}|\\.|\[[^\]]*\]|[^\\()])\?)*'
)
_LONGEST = 2000


def check(path: pathlib.Path, spec: Mapping[str, Any]) -> None:
  """Refuses what would drop or replace a part of a text.

  Args:
    path: of the file, for the message.
    spec: its content.

  Raises:
    ValueError: names the setting.
  """
  normalizer(spec, path)
  _check_rule(path, spec.get('pre_tokenizer'))
  _check_post(path, spec.get('post_processor'))
  for part in _parts(spec.get('decoder'), 'decoders'):
    if not isinstance(part, dict) or part.get('type') != 'ByteLevel':
      refuse(path, "a decoder of type 'ByteLevel'", short(part))


def normalizer(
  spec: Mapping[str, Any], path: pathlib.Path = pathlib.Path()
) -> bool:
  """Whether texts are normalized, which must be to NFC."""
  parts = _parts(spec.get('normalizer'), 'normalizers')
  for part in parts:
    if part != {'type': 'NFC'}:
      refuse(
        path, "no normalizer but 'NFC', or a text comes back other", short(part)
      )
  return bool(parts)


def is_nfc(text: str) -> bool:
  """Whether a text is in the form NFC."""
  return normalizers.NFC().normalize_str(text) == text


def refuse(path: pathlib.Path, constraint: str, found: str) -> NoReturn:
  """Raises the one line that refuses a setting."""
  raise refusal(path, f'have {constraint}', found, REMEDY)


def _parts(value: Any, name: str) -> list[Any]:
  """The steps of a setting; none if it is null."""
  if value is None:
    return []
  if isinstance(value, dict) and value.get('type') == 'Sequence':
    inner = value.get(name)
    if isinstance(inner, list) and value.keys() == {'type', name}:
      return [part for entry in inner for part in _parts(entry, name)]
  return [value]


def _check_rule(path: pathlib.Path, rule: Any) -> None:
  steps = _parts(rule, 'pretokenizers')
  for step in steps:
    kind = step.get('type') if isinstance(step, dict) else None
    if not isinstance(kind, str) or kind not in _STEPS:
      refuse(path, f'a pre_tokenizer of {", ".join(_STEPS)}', short(step))
    for name in step.keys() - _STEPS[kind]:
      refuse(path, f'pre_tokenizer {kind} without {short(name)}', short(step))
    if kind == 'ByteLevel':
      _check_byte_level(path, step)
    elif kind == 'Split':
      _check_pattern(path, step.get('pattern'))
    if kind in ('Split', 'Punctuation'):
      behavior = step.get('behavior')
      if behavior not in _BEHAVIORS:
        refuse(path, f'pre_tokenizer {kind} keep what it cuts', short(behavior))
  kinds = [step['type'] for step in steps]
  if kinds.count('ByteLevel') != 1 or kinds[-1] != 'ByteLevel':
    refuse(
      path, 'a pre_tokenizer with ByteLevel once, last', short(kinds or rule)
    )


def _check_byte_level(path, step):
  if step.get('add_prefix_space') is not False:
    found = f'pre_tokenizer with {short(step.get("add_prefix_space"))}'
    refuse(path, 'add_prefix_space false, or a text gains a space', found)


def _check_pattern(path: pathlib.Path, pattern: Any) -> None:
  """Refuses patterns that a text could make run for hours."""
  if (
    not isinstance(pattern, dict)
    or len(pattern) != 1
    or not pattern.keys() <= {'String', 'Regex'}
    or not isinstance(next(iter(pattern.values())), str)
  ):
    refuse(path, 'pre_tokenizer Split with a Regex or String', short(pattern))
  regex = pattern.get('Regex', '')
  if len(regex) > _LONGEST:
    found = f'{len(regex)} characters'
    refuse(path, f'a pattern of at most {_LONGEST} characters', found)
  for part in _alternatives(regex):
    kinds = [match.lastgroup for match in part]
    open_ended = [
      i
      for i, match in enumerate(part)
      if kinds[i] == 'repeat' and not _FEW.fullmatch(match[0])
    ]
    # What may fail behind two of them is tried at each pair of places.
    rest = part[open_ended[1] + 1 :] if len(open_ended) > 1 else []
    if (
      len(open_ended) > 2
      or not _OPTIONAL.fullmatch(''.join(match[0] for match in rest))
      or any(pair in _NESTED for pair in itertools.pairwise(kinds))
      or any(m[0][1] in '123456789kg' for m in part if m[0][0] == '\\')
    ):
      refuse(
        path,
        'a pattern without repeated groups, references, or repetitions in a '
        'row',
        short(regex),
      )


def _alternatives(regex: str) -> list[list[re.Match[str]]]:
  """The pieces of each of the alternatives that are not within a group."""
  parts, depth = [[]], 0
  for match in _PIECE.finditer(regex):
    kind = match.lastgroup
    depth += (kind == 'open') - (kind == 'close')
    if kind == 'or' and not depth:
      parts.append([])
    else:
      parts[-1].append(match)
  return parts


def _check_post(path: pathlib.Path, processor: Any) -> None:
  """Refuses what would add tokens to those of a text."""
  for part in _parts(processor, 'processors'):
    kind = part.get('type') if isinstance(part, dict) else None
    if kind == 'TemplateProcessing':
      match part.get('single'):
        case [{'Sequence': {'id': 'A'}}]:
          continue
    if kind != 'ByteLevel':
      found = short(part.get('single', kind) if kind else part)
      refuse(path, 'a post_processor that adds no tokens', found)
