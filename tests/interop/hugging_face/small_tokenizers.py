"""Small tokenizers in files as others write them, and texts that try them."""

import json
import random
import unicodedata

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

END = '<|endoftext|>'
# Steps that write pieces in bytes; the second does not cut them before.
BYTES = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True}
AFTER = {**BYTES, 'use_regex': False}
_TEXT = """def total(values, start=0):
  for value in values:
    start = start + value * 12345   # it's we'll  they're
  return start  # <|endoftext|> é 日本 naïve
"""


def train(special=(END,), size=320, pre_tokenizer=None):
  """A byte-level BPE of the library, special tokens first, as it puts them."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  backend.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=list(special),
    show_progress=False,
  )
  backend.train_from_iterator([_TEXT] * 20, trainer)
  return backend


def spec_of(backend):
  """What its tokenizer.json would hold."""
  return json.loads(backend.to_str())


def write_spec(path, spec):
  path.write_text(json.dumps(spec))
  return path


def write_pair(directory, backend, names=('vocab.json', 'merges.txt')):
  """The two files that the library's `save_model` writes."""
  model = spec_of(backend)['model']
  (directory / names[0]).write_text(json.dumps(model['vocab']))
  lines = ['#version: 0.2', *(' '.join(pair) for pair in model['merges']), '']
  (directory / names[1]).write_bytes('\n'.join(lines).encode())


def added(i, content, **changes):
  """One entry of added_tokens."""
  flags = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')
  return {'id': i, 'content': content, **dict.fromkeys(flags, False), **changes}


def split(pattern, behavior='Isolated', invert=False, kind='Regex'):
  return {
    'type': 'Split',
    'pattern': {kind: pattern},
    'behavior': behavior,
    'invert': invert,
  }


def steps(*steps):
  return {'type': 'Sequence', 'pretokenizers': list(steps)}


def with_settings(spec, **changes):
  """A copy with other settings; those of the model are written model__x."""
  spec = json.loads(json.dumps(spec))
  for name, value in changes.items():
    where, _, inner = name.partition('__')
    if inner:
      spec[where][inner] = value
    else:
      spec[name] = value
  return spec


def texts(seed=0, count=60):
  """Source, words, runs of white space, random characters, special tokens."""
  rng = random.Random(seed)
  odd = [
    *('', ' ', '\n', _TEXT, END, f'a{END}b', f' {END} ', '<|pad|>', '[PAD]'),
    *(
      '  ',
      '   x',
      'x   ',
      '\t\t x \n\n\n y',
      '\r\n\r\n',
      '\u2003 \u2003a\xa0',
    ),
    *("it's IT'S they'RE", '1234567 12.5', 'Ġhello', 'é日本', 'ﬁ', '\0\x7f'),
    *('e\u0301', '\u1100\u1161', '\u212b', '😀👍🏽', 'a\u200db', '_' * 50),
  ]
  for _ in range(count):
    odd.append(rng.randbytes(80).decode('latin-1'))
    odd.append(rng.randbytes(80).decode('utf-8', 'replace'))
    odd.append(''.join(rng.choices(" \n\tab1.'é<|>", k=60)))
    points = [rng.randrange(0x110000) for _ in range(30)]
    odd.append(''.join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
  return odd


def is_nfc(text):
  return unicodedata.is_normalized('NFC', text)


def assert_same(ours, theirs, given=None):
  """Ids as the library's with special tokens apart, and the text unchanged."""
  theirs.encode_special_tokens = True
  for text in texts() if given is None else given:
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids, repr(text)
    assert ours.decode(ids) == text
    assert not set(ids) & set(ours.special_tokens.values())
    assert ours.encode(text) == ids
    assert ours.encode_batch([text]) == [ids]
