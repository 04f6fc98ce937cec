"""`tokenizer.json`: settings give the library's own ids, or are refused."""

import functools
import os

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from sparse_interp.data.cutting import GPT2_PATTERN, SPLIT_PATTERN
from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.interop.hugging_face import bpe_files, hf_tokenizer
from tests.interop.hugging_face import small_tokenizers as small

_NFC = {'type': 'NFC'}


@pytest.fixture(scope='module')
def spec():
  return small.spec_of(small.train())


def _more(spec, *tokens):
  return spec['added_tokens'] + list(tokens)


@pytest.mark.parametrize('nfc', [None, _NFC])
def test_a_tokenizer_like_that_of_gpt_neox_is_read(tmp_path, nfc):
  # The end of text first, a second special token, and runs of spaces last.
  backend = small.train((small.END, '<|padding|>'))
  size = backend.get_vocab_size()
  spec = small.spec_of(backend)
  runs = [
    small.added(size + i, ' ' * (9 - i), normalized=True) for i in range(8)
  ]
  spec = small.with_settings(
    spec, normalizer=nfc, added_tokens=_more(spec, *runs)
  )
  path = small.write_spec(tmp_path / 'tokenizer.json', spec)
  ours, theirs = (
    hf_tokenizer.load(path),
    tokenizers.Tokenizer.from_file(str(path)),
  )
  assert (ours.eot, ours.vocab_size) == (0, size + 8)
  assert ours.pattern == GPT2_PATTERN
  given = [t for t in small.texts() if not nfc or ours.can_encode(t)]
  small.assert_same(ours, theirs, given)
  assert ours.encode('    x')[0] == size + 5
  assert ours.pieces([0, size + 5]) == [small.END, '    ']
  assert '8 added tokens' in ours.rule
  if nfc:
    assert len(given) > 60
    assert 'NFC' in ours.rule
    for call in (ours.encode, lambda text: ours.encode_batch(['a', text])):
      with pytest.raises(ValueError, match=r'NFC, .*at character 1; pass') as e:
        call('ae\u0301')
      assert '\n' not in str(e.value)


def test_added_tokens_of_any_spelling_come_back(spec, tmp_path):
  size = len(spec['model']['vocab'])
  tokens = [
    small.added(size, 'é日'),  # letters that stand for other bytes
    small.added(size + 1, 'it', single_word=True),
    small.added(size + 2, '\u00c9a', normalized=True),
    small.added(size + 3, '[日本]', special=True, lstrip=True, rstrip=True),
  ]
  spec = small.with_settings(spec, added_tokens=_more(spec, *tokens))
  path = small.write_spec(tmp_path / 'tokenizer.json', spec)
  ours = hf_tokenizer.load(path)
  given = ['é日 é日本', "it it's bit", 'Éa Éab', 'a [日本] b', *small.texts()]
  small.assert_same(ours, tokenizers.Tokenizer.from_file(str(path)), given)
  assert size in ours.encode('é日')
  assert ours.pieces([size, size + 3]) == ['é日', '[日本]']


_SIZE = 320
_E = small.train().token_to_id('é')
_REFUSED = {
  'truncation': {
    'truncation': {
      'direction': 'Right',
      'max_length': 4,
      'strategy': 'LongestFirst',
      'stride': 0,
    }
  },
  'padding': {
    'padding': {
      'strategy': {'Fixed': 9},
      'direction': 'Right',
      'pad_to_multiple_of': None,
      'pad_id': 0,
      'pad_type_id': 0,
      'pad_token': small.END,
    }
  },
  'dropout': {'model__dropout': 0.1},
  'NFKC': {'normalizer': {'type': 'NFKC'}},
  'Lowercase': {
    'normalizer': {
      'type': 'Sequence',
      'normalizers': [_NFC, {'type': 'Lowercase'}],
    }
  },
  'Strip': {
    'normalizer': {'type': 'Strip', 'strip_left': True, 'strip_right': True}
  },
  'Replace': {
    'normalizer': {
      'type': 'Replace',
      'pattern': {'String': ' '},
      'content': '▁',
    }
  },
  'add_prefix_space': {
    'pre_tokenizer': {
      **small.BYTES,
      'add_prefix_space': True,
      'use_regex': True,
    }
  },
  'Metaspace': {
    'pre_tokenizer': {
      'type': 'Metaspace',
      'replacement': '▁',
      'prepend_scheme': 'always',
      'split': True,
    }
  },
  'WhitespaceSplit': {
    'pre_tokenizer': small.steps({'type': 'WhitespaceSplit'}, small.AFTER)
  },
  'Whitespace': {
    'pre_tokenizer': small.steps({'type': 'Whitespace'}, small.AFTER)
  },
  'Removed': {
    'pre_tokenizer': small.steps(
      small.split(r'\s+', 'Removed', invert=True), small.AFTER
    )
  },
  'Punctuation': {
    'pre_tokenizer': small.steps(
      {'type': 'Punctuation', 'behavior': 'Removed'}, small.AFTER
    )
  },
  'ByteLevel once': {'pre_tokenizer': small.steps(small.AFTER, small.AFTER)},
  'ByteLevel once, last': {
    'pre_tokenizer': small.steps(small.AFTER, small.split('a'))
  },
  'pre_tokenizer': {'pre_tokenizer': None},
  'repeated groups': {
    'pre_tokenizer': small.steps(small.split('(a+)+$'), small.AFTER)
  },
  'repetitions in a row': {
    'pre_tokenizer': small.steps(small.split('a*a*a*'), small.AFTER)
  },
  'or repetitions': {
    'pre_tokenizer': small.steps(small.split('b|a*a+9|.'), small.AFTER)
  },
  'references': {
    'pre_tokenizer': small.steps(small.split(r'(a)\1'), small.AFTER)
  },
  'at most 2000': {
    'pre_tokenizer': small.steps(small.split('a' * 2001), small.AFTER)
  },
  'Oniguruma': {'pre_tokenizer': small.steps(small.split('('), small.AFTER)},
  'post_processor': {
    'post_processor': {
      'type': 'TemplateProcessing',
      'single': [
        {'SpecialToken': {'id': small.END, 'type_id': 0}},
        {'Sequence': {'id': 'A', 'type_id': 0}},
      ],
      'pair': [{'Sequence': {'id': 'A', 'type_id': 0}}],
      'special_tokens': {
        small.END: {'id': small.END, 'ids': [0], 'tokens': [small.END]}
      },
    }
  },
  'RobertaProcessing': {
    'post_processor': {
      'type': 'RobertaProcessing',
      'sep': [small.END, 0],
      'cls': [small.END, 0],
      'trim_offsets': True,
      'add_prefix_space': False,
    }
  },
  'decoder': {'decoder': {'type': 'WordPiece', 'prefix': '#', 'cleanup': True}},
  'continuing_subword_prefix': {'model__continuing_subword_prefix': '##'},
  'end_of_word_suffix': {'model__end_of_word_suffix': '</w>'},
  'WordPiece': {'model__type': 'WordPiece'},
  'Unigram': {'model': {'type': 'Unigram', 'unk_id': 0, 'vocab': [['a', 0.0]]}},
  'lstrip': {'added_tokens': [small.added(_SIZE, 'x', lstrip=True)]},
  'rstrip': {'added_tokens': [small.added(_SIZE, 'x', rstrip=True)]},
  'entries of other bytes': {'added_tokens': [small.added(_E, 'é')]},
  f'{small.END} as a special': {'added_tokens': [small.added(0, small.END)]},
  'no merge makes': {'added_tokens': [small.added(1, '!', special=True)]},
  'in the form NFC': {
    'normalizer': _NFC,
    'added_tokens': [small.added(_SIZE, 'e\u0301')],
  },
  'one id for each': {
    'added_tokens': [small.added(7, small.END, special=True)]
  },
  'each once, got 900': {'added_tokens': [small.added(900, 'zz')]},
  'each once, got 9999999999': {
    'added_tokens': [small.added(9999999999, 'zz')]
  },
  'settings that are known': {'later': 1},
  'settings of a BPE': {'model__later': 1},
  'a content': {'added_tokens': [small.added(_SIZE, '')]},
  'qqqq': {'model__merges': [['q', 'qqqq']]},
  'entry for every byte': {'model__vocab': {'a': 0}},
}


@pytest.mark.parametrize('name', _REFUSED)
def test_settings_that_would_change_a_text_are_refused_by_name(
  spec, tmp_path, name
):
  assert len(spec['model']['vocab']) == _SIZE
  spec = small.with_settings(spec, **_REFUSED[name])
  path = small.write_spec(tmp_path / 'tokenizer.json', spec)
  with pytest.raises(ValueError) as info:
    hf_tokenizer.load(path)
  assert name in str(info.value)
  assert str(path) in str(info.value)
  assert '\n' not in str(info.value)
  assert len(str(info.value)) < 600


def test_an_id_twice_or_no_end_of_text_is_refused(spec, tmp_path):
  vocab = spec['model']['vocab']
  other = {('<|x|>' if e == small.END else e): i for e, i in vocab.items()}
  path = tmp_path / 'tokenizer.json'
  for wrong, expected in (
    (
      small.with_settings(spec, model__vocab=vocab | {'!': 5}),
      'each once, got 5',
    ),
    (
      small.with_settings(spec, model__vocab=other, added_tokens=[]),
      'got none',
    ),
    (
      small.with_settings(spec, model__ignore_merges=True),
      'no merge that makes',
    ),
  ):
    small.write_spec(path, wrong)
    with pytest.raises(ValueError, match=expected):
      hf_tokenizer.load(path)
  # An end of text that is no added token is never read from a text, either.
  small.write_spec(path, small.with_settings(spec, added_tokens=[]))
  small.assert_same(
    hf_tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
  )


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'[' * 10**5, b'\xff'])
def test_files_that_are_none_are_refused(tmp_path, content):
  path = tmp_path / 'tokenizer.json'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r'tokenizer\.json must be') as info:
    hf_tokenizer.load(path)
  assert '\n' not in str(info.value)


def test_what_no_file_is_does_not_wait(tmp_path):
  os.mkfifo(tmp_path / 'tokenizer.json')
  with pytest.raises(ValueError, match='must be a file'):
    hf_tokenizer.load(tmp_path / 'tokenizer.json')


def test_ours_are_read_as_the_same(tmp_path):
  ours = train_tokenizer(['some words and words'] * 5, 300)
  ours.save(tmp_path / 'tokenizer.json')
  assert hf_tokenizer.load(tmp_path / 'tokenizer.json').hash == ours.hash


def test_what_tiktoken_cannot_do_is_not_written_for_it(spec, tmp_path):
  size = len(spec['model']['vocab'])
  for changes in (
    {'normalizer': _NFC},
    {'added_tokens': _more(spec, small.added(size, 'xyz'))},
    {
      'pre_tokenizer': small.steps(
        {'type': 'Digits', 'individual_digits': False}, small.AFTER
      )
    },
  ):
    path = small.write_spec(
      tmp_path / 'x.json', small.with_settings(spec, **changes)
    )
    with pytest.raises(ValueError, match='to be written for tiktoken, got'):
      bpe_files.export(hf_tokenizer.load(path), tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
  bpe_files.export(
    hf_tokenizer.load(small.write_spec(path, spec)), tmp_path / 'out'
  )
  again = bpe_files.load(tmp_path / 'out', GPT2_PATTERN)
  small.assert_same(again, tokenizers.Tokenizer.from_file(str(path)))


_small = functools.cache(small.train)


@pytest.mark.slow
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=150)
def test_any_mutation_is_read_exactly_or_refused_in_one_line(
  tmp_path_factory, data
):
  """Some value somewhere is another one, or gone."""
  mutated = small.spec_of(_small())
  at, parents = mutated, []
  while isinstance(at, dict | list) and at:
    keys = list(at) if isinstance(at, dict) else list(range(min(len(at), 3)))
    key = data.draw(st.sampled_from(keys[:40]))
    parents.append((at, key))
    at = at[key]
  parent, key = parents[-1]
  parent[key] = data.draw(
    st.sampled_from([None, True, False, 0, -1, 2**40, 0.5, '', 'a', [], {}])
  )
  path = tmp_path_factory.mktemp('m') / 'tokenizer.json'
  small.write_spec(path, mutated)
  try:
    ours = hf_tokenizer.load(path)
  except ValueError as error:
    assert '\n' not in str(error)  # noqa: PT017
    return
  given = [t for t in small.texts(count=3) if ours.can_encode(t)]
  small.assert_same(ours, tokenizers.Tokenizer.from_file(str(path)), given)


def test_the_pattern_of_gpt2_cuts_as_the_library_does(tmp_path):
  theirs = small.train()
  small.write_pair(tmp_path, theirs)
  small.assert_same(bpe_files.load(tmp_path, GPT2_PATTERN), theirs)
  split = small.train(
    pre_tokenizer=pre_tokenizers.Sequence(
      [
        pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
      ]
    )
  )
  small.write_pair(tmp_path, split)
  small.assert_same(bpe_files.load(tmp_path), split)
