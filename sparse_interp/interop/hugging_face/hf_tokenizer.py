"""Hugging Face's `tokenizer.json`, read with suspicion.

The library that writes such files cuts and merges here, too, so that ids are
those of the model's own tokenizer. Every setting is looked at first. One that
would lose a part of a text, change it, or encode it differently the next time
is refused by its name; one that nobody knows is refused, too.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders

from sparse_interp.data import tokenizer as tokenizer_lib
from sparse_interp.data.tokenizer import END_OF_TEXT, Tokenizer
from sparse_interp.files import sealed
from sparse_interp.interop.hugging_face import hf_cutting
from sparse_interp.interop.hugging_face.hf_config import (
  read_json,
  refusal,
  short,
)
from sparse_interp.interop.hugging_face.hf_cutting import REMEDY, refuse

_TOP = frozenset(
  'version truncation padding added_tokens normalizer pre_tokenizer '
  'post_processor decoder model'.split()
)
_MODEL = frozenset(
  'type dropout unk_token continuing_subword_prefix end_of_word_suffix '
  'fuse_unk byte_fallback ignore_merges vocab merges'.split()
)
_ADDED = frozenset(
  'id content single_word lstrip rstrip normalized special'.split()
)


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a byte-level BPE.

  Args:
    path: of the file.

  Returns:
    A tokenizer whose ids of any text are those of the library with this file
    and `encode_special_tokens`, and which gives every text back unchanged.

  Raises:
    ValueError: if the file is damaged, or a setting breaks this; names it.
  """
  path = pathlib.Path(path)
  spec = read_json(path)
  if sealed.SEAL in spec:  # one of ours, from a workdir
    spec = sealed.read_json(path, 'copy the file again')
  _check_keys(path, spec, _TOP, 'settings')
  for name in ('truncation', 'padding'):
    if spec.get(name) is not None:
      refuse(path, f'{name} null', short(spec[name]))
  hf_cutting.check(path, spec)
  _check_model(path, spec.get('model'))
  _check_added(path, spec)
  ids = _read_ids(path, spec)
  try:
    # What was looked at, and not what another parser sees in the file.
    backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
  except Exception as error:  # noqa: BLE001 (the library raises these)
    reason = ' '.join(str(error).split())
    raise refusal(path, 'be a tokenizer', reason[:120], REMEDY) from None
  if backend.get_vocab(with_added_tokens=True) != ids:
    refuse(path, 'added_tokens with the ids behind model.vocab', 'others')
  # What comes after the ids changes none of them.
  spec = json.loads(backend.to_str()) | {'post_processor': None}
  backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens([END_OF_TEXT])
  return Tokenizer(backend)


def _check_keys(path, given, known, what):
  if not isinstance(given, dict):
    refuse(path, f'{what} as an object', short(given))
  for name in given:
    if name not in known:
      refuse(
        path,
        f'{what} that are known not to change a text',
        f'{short(name)}={short(given[name])}',
      )


def _check_model(path: pathlib.Path, model: Any) -> None:
  """Refuses all but a BPE that has every byte and makes no random choice."""
  if not isinstance(model, dict) or model.get('type') != 'BPE':
    found = model.get('type') if isinstance(model, dict) else model
    refuse(path, "a model of type 'BPE'", short(found))
  _check_keys(path, model, _MODEL, 'settings of a BPE')
  if model.get('dropout') not in (None, 0.0):
    found = short(model['dropout'])
    refuse(path, 'model.dropout null, or ids are drawn by chance', found)
  for name in ('continuing_subword_prefix', 'end_of_word_suffix'):
    if model.get(name):
      refuse(path, f'model.{name} null', short(model[name]))
  vocab = model.get('vocab')
  if not isinstance(vocab, dict) or not isinstance(model.get('merges'), list):
    refuse(path, 'model.vocab and model.merges', short([*model]))
  for letter, byte in tokenizer_lib.byte_letters().items():
    if letter not in vocab:
      refuse(path, 'an entry for every byte', f'none for byte {byte}')


def _check_added(path: pathlib.Path, spec: Mapping[str, Any]) -> None:
  """Refuses added tokens that would take a part of a text away."""
  added = spec.get('added_tokens') or []
  if not isinstance(added, list):
    refuse(path, 'added_tokens as a list', short(added))
  made = _made(spec['model'])
  if END_OF_TEXT in made:
    refuse(path, f'no merge that makes {END_OF_TEXT}', 'one')
  for token in added:
    _check_keys(path, token, _ADDED, 'added_tokens with settings')
    content = token.get('content')
    if not isinstance(content, str) or not content:
      refuse(path, 'added_tokens with a content', short(content))
    if token.get('special'):
      if content in made:
        refuse(path, 'special tokens that no merge makes', short(content))
      continue
    if content == END_OF_TEXT:
      refuse(path, f'{END_OF_TEXT} as a special token', short(token))
    for name in ('lstrip', 'rstrip'):
      if token.get(name):
        refuse(path, f'no {name} in added_tokens', short(content))
    # Such an entry is one byte for each letter when a merge makes it.
    if content in made and not content.isascii():
      refuse(path, 'added_tokens unlike entries of other bytes', short(content))
    if hf_cutting.normalizer(spec) and not hf_cutting.is_nfc(content):
      refuse(
        path, 'added_tokens in the form NFC of its normalizer', short(content)
      )


def _made(model: Mapping[str, Any]) -> set[str]:
  """The entries that a text can be encoded to."""
  if model.get('ignore_merges'):
    return set(model['vocab'])
  made = set(tokenizer_lib.byte_letters())
  for pair in model['merges']:
    parts = pair.split(' ') if isinstance(pair, str) else pair
    if isinstance(parts, list) and all(isinstance(p, str) for p in parts):
      made.add(''.join(parts))
  return made


def _read_ids(path: pathlib.Path, spec: Mapping[str, Any]) -> dict[str, int]:
  """{entry: id} of all entries: from 0 on, each once."""
  ids = dict(spec['model']['vocab'])
  for token in spec.get('added_tokens') or []:
    content, i = token['content'], token.get('id')
    if ids.setdefault(content, i) != i:
      found = f'{short(content)} with {ids[content]} and {short(i)}'
      refuse(path, 'one id for each entry', found)
  seen = set()
  for entry, i in ids.items():
    if type(i) is not int or not 0 <= i < len(ids) or i in seen:
      found = f'{short(i)} for {short(entry)}'
      refuse(path, f'the ids from 0 to {len(ids) - 1}, each once', found)
    seen.add(i)
  if END_OF_TEXT not in ids:
    refuse(path, f'an entry {END_OF_TEXT}', 'none')
  return ids
