"""The tokenizer that belongs to a model: which files, and how they cut text.

`tokenizer.json` says everything itself. A vocabulary and its merges do not say
by which pattern text is cut before anything is merged: the model does, by its
family, by the class that `tokenizer_config.json` or `config.json` names, or by
`tokenizer_name` in a released configuration. Where none of these is known, the
files are refused.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sparse_interp.data.cutting import GPT2_PATTERN, SPLIT_PATTERN
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.interop.hugging_face import bpe_files, hf_tokenizer
from sparse_interp.interop.hugging_face.hf_config import (
  CONFIG,
  read_json,
  refusal,
  short,
)
from sparse_interp.interop.hugging_face.hf_cutting import REMEDY
from sparse_interp.interop.openai import openai_config

_WHOLE, _SETTINGS = 'tokenizer.json', 'tokenizer_config.json'
_ADDED = 'added_tokens.json'
FILES = (_WHOLE, *sum(bpe_files.NAMES, ()), _SETTINGS, _ADDED)
# Of a file that may be named.
ENDINGS = ('.json', '.txt', '.bpe')

# {who cuts: (pattern, whether text must be in the form NFC)}
_GPT2, _NEOX = (GPT2_PATTERN, False), (GPT2_PATTERN, True)
_BY_KIND = {'gpt2': _GPT2, 'gpt_neox': _NEOX}
_BY_CLASS = {
  'GPT2Tokenizer': _GPT2,
  'GPT2TokenizerFast': _GPT2,
  'GPTNeoXTokenizer': _NEOX,
  'GPTNeoXTokenizerFast': _NEOX,
}
_BY_NAME = {'tinypython_2k': (SPLIT_PATTERN, False), 'gpt2': _GPT2}
# Settings under which the model's own tokenizer would change every text.
_MUST_BE_FALSE = (
  *('add_prefix_space', 'add_bos_token', 'add_eos_token', 'do_lower_case'),
  'auto_map',  # code of its own
)


@dataclasses.dataclass(frozen=True, eq=False)
class OwnTokenizer:
  """A tokenizer and where it comes from.

  Attributes:
    tokenizer: as the model's own.
    files: names of those that it was read from.
    why: what decided how text is cut.
  """

  tokenizer: Tokenizer
  files: tuple[str, ...]
  why: str


def find(
  place: str | os.PathLike, model: str | os.PathLike, kind: str
) -> OwnTokenizer | None:
  """Reads the tokenizer in a directory, or the one that a file is a part of.

  Args:
    place: a directory, or a file of one.
    model: directory of the model, which may be the same.
    kind: of the model, as `source.load` calls it.

  Returns:
    The tokenizer; None if there are no files of one.

  Raises:
    ValueError: if files are damaged or do not belong together, if nothing says
      how text is cut, or if a setting would change a text; names it.
  """
  place, model = pathlib.Path(place), pathlib.Path(model)
  directory, only = (place, None) if place.is_dir() else (place.parent, place)
  settings = _settings(directory)
  pairs = [
    names
    for names in bpe_files.NAMES
    if any((directory / name).is_file() for name in names)
  ]
  if only is not None:
    pairs = [names for names in pairs if only.name in names]
  whole = directory / _WHOLE if only is None else only
  if whole.is_file() and not (only and pairs):
    tokenizer = hf_tokenizer.load(whole)
    _check_added(directory, settings, tokenizer)
    for names in pairs if only is None else ():
      _check_same(directory, names, tokenizer)
    return OwnTokenizer(tokenizer, (whole.name,), f'{whole.name} says so')
  if not pairs:
    return None
  (pattern, nfc), why = _rule(directory, settings, model, kind)
  special = _special(directory, settings)
  tokenizers = [
    bpe_files.read(directory, names, pattern, nfc, special) for names in pairs
  ]
  if len({tokenizer.hash for tokenizer in tokenizers}) > 1:
    raise _two(directory, ' and '.join(names[0] for names in pairs))
  return OwnTokenizer(tokenizers[0], pairs[0], why)


def _settings(directory: pathlib.Path) -> dict[str, Any]:
  """tokenizer_config.json, if it has nothing that would change a text."""
  path = directory / _SETTINGS
  if not path.exists():
    return {}
  settings = read_json(path)
  for name in _MUST_BE_FALSE:
    if settings.get(name):
      raise refusal(path, f'have {name} false', short(settings[name]), REMEDY)
  return settings


def _rule(
  directory: pathlib.Path,
  settings: Mapping[str, Any],
  model: pathlib.Path,
  kind: str,
) -> tuple[tuple[str, bool], str]:
  """How a vocabulary's model cuts text, and what says so."""
  if kind == 'released':
    names = [n for n in openai_config.NAMES if (model / n).is_file()]
    fields = read_json(model / names[0]) if names else {}
    name = fields.get('tokenizer_name', 'tinypython_2k')
    path, what, known = model / names[0], 'tokenizer_name', _BY_NAME
  else:
    name, path = settings.get('tokenizer_class'), directory / _SETTINGS
    if name is None and (model / CONFIG).is_file():
      path = model / CONFIG
      name = read_json(path).get('tokenizer_class')
    what, known = 'tokenizer_class', _BY_CLASS
  if name is None:
    return _BY_KIND[kind], f'the model is a {kind}'
  if not isinstance(name, str) or name not in known:
    raise refusal(
      path,
      f'have {what} among {", ".join(known)}, since {directory} does not say '
      'how text is cut',
      short(name),
      f'add the {_WHOLE} of this tokenizer',
    )
  return known[name], f'{what} is {name}'


def _added(
  directory: pathlib.Path, settings: Mapping[str, Any]
) -> dict[str, tuple[int, dict[str, Any]]]:
  """{token: (id, settings)} that are declared outside of the vocabulary."""
  path, found = directory / _SETTINGS, {}
  declared = settings.get('added_tokens_decoder') or {}
  if not isinstance(declared, dict):
    raise refusal(
      path, 'have added_tokens_decoder as an object', short(declared), REMEDY
    )
  for i, token in declared.items():
    content = token.get('content') if isinstance(token, dict) else None
    if not isinstance(content, str) or not (i.isascii() and i.isdecimal()):
      raise refusal(
        path, 'have tokens by their ids', f'{short(i)}: {short(token)}', REMEDY
      )
    found[content] = int(i[:10]), token
  path = directory / _ADDED
  for content, i in (read_json(path) if path.exists() else {}).items():
    if type(i) is not int or found.setdefault(content, (i, {}))[0] != i:
      raise refusal(
        path,
        'have one id for each token',
        f'{short(content)}: {short(i)}',
        REMEDY,
      )
  return found


def _special(
  directory: pathlib.Path, settings: Mapping[str, Any]
) -> dict[str, int]:
  """{token: id} that are declared and that no text encodes to.

  Raises:
    ValueError: if one is to be read from texts.
  """
  special = {}
  for content, (i, token) in _added(directory, settings).items():
    if token.get('special') is not True and not bpe_files.is_special(content):
      raise refusal(
        directory,
        'declare special tokens alone beside a vocabulary and its merges',
        f'added token {short(content)}',
        f'add the {_WHOLE} of this tokenizer',
      )
    special[content] = i
  return special


def _check_added(directory, settings, tokenizer):
  """Compares tokens that are declared beside a tokenizer.json with it."""
  ids, flags = tokenizer.vocabulary(), tokenizer.added_tokens()
  for content, (i, token) in _added(directory, settings).items():
    ours = flags.get(content, {})
    if ours.get('special'):  # how others match it in texts does not matter
      ours = {'special': True}
    odd = [name for name in ours if token.get(name, ours[name]) != ours[name]]
    if ids.get(content) != i or odd:
      found = f'{short(content)} with id {i}' + ''.join(
        f', {name}={short(token[name])}' for name in odd[:1]
      )
      raise refusal(
        directory,
        f'declare the added tokens that {_WHOLE} has',
        found,
        'remove what is not of this tokenizer',
      )


def _check_same(directory, names, tokenizer):
  """Compares a vocabulary and merges beside a tokenizer.json with it."""
  if not all((directory / name).is_file() for name in names):
    return
  ids, merges = bpe_files.read_pair(directory, names)
  found = tokenizer.vocabulary()
  if merges != tokenizer.merges() or any(
    found.get(entry) != i for entry, i in ids.items()
  ):
    raise _two(directory, f'{_WHOLE} and {names[0]}')


def _two(directory, found):
  return refusal(
    directory,
    'hold one tokenizer',
    f'others in {found}',
    'remove the files that are not of this model',
  )
