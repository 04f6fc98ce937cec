"""Rules of cutting in a `tokenizer.json`: the ids are those of the library."""

import pytest
import tokenizers

from sparse_interp.data.cutting import GPT2_PATTERN, SPLIT_PATTERN
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.interop.hugging_face import hf_tokenizer
from tests.interop.hugging_face import small_tokenizers as small

# Of published models.
_CL100K = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_O200K = (
  r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
  r"+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}"
  r"\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


@pytest.fixture(scope='module')
def spec():
  return small.spec_of(small.train())


_HONOURED = {
  'as it is': {},
  'no decoder': {'decoder': None},
  'offsets': {'post_processor': {**small.BYTES, 'trim_offsets': False}},
  'a template of the text': {
    'post_processor': {
      'type': 'TemplateProcessing',
      'single': [{'Sequence': {'id': 'A', 'type_id': 0}}],
      'pair': [{'Sequence': {'id': 'A', 'type_id': 0}}],
      'special_tokens': {},
    }
  },
  'tinypython_2k': {
    'pre_tokenizer': small.steps(small.split(SPLIT_PATTERN), small.AFTER)
  },
  'cl100k': {'pre_tokenizer': small.steps(small.split(_CL100K), small.AFTER)},
  'o200k': {'pre_tokenizer': small.steps(small.split(_O200K), small.AFTER)},
  'digits': {
    'pre_tokenizer': small.steps(
      {'type': 'Digits', 'individual_digits': True},
      small.BYTES | {'use_regex': True},
    )
  },
  'punctuation': {
    'pre_tokenizer': small.steps(
      {'type': 'Punctuation', 'behavior': 'Contiguous'}, small.AFTER
    )
  },
  'two splits': {
    'pre_tokenizer': small.steps(
      small.split(r'\p{N}{1,3}', 'MergedWithPrevious'),
      small.steps(small.split(' ', 'MergedWithNext', kind='String')),
      small.split(r'[a-z]+', 'Contiguous', invert=True),
      small.BYTES | {'use_regex': True},
    )
  },
  'no cuts': {'pre_tokenizer': small.AFTER},
  'whole words first': {'model__ignore_merges': True, 'added_tokens': []},
  'no probability': {'model__dropout': 0.0},
  'an unknown token that never comes': {
    'model__unk_token': small.END,
    'model__byte_fallback': True,
    'model__fuse_unk': True,
  },
}


@pytest.mark.slow
@pytest.mark.parametrize('name', _HONOURED)
def test_settings_give_the_ids_of_the_library(spec, tmp_path, name):
  spec = small.with_settings(spec, **_HONOURED[name])
  if name == 'whole words first':
    # The one entry that no text may be encoded to must be no word then.
    end = spec['model']['vocab'].pop(small.END)
    vocab = {e: i - 1 for e, i in spec['model']['vocab'].items()}
    spec['model']['vocab'] = vocab
    spec['added_tokens'] = [small.added(len(vocab), small.END, special=True)]
    assert end == 0
  path = small.write_spec(tmp_path / 'tokenizer.json', spec)
  ours = hf_tokenizer.load(path)
  small.assert_same(ours, tokenizers.Tokenizer.from_file(str(path)))
  # The copy in a workdir, too.
  ours.save(tmp_path / 'w' / 'tokenizer.json')
  again = Tokenizer.load(tmp_path / 'w' / 'tokenizer.json')
  assert again.hash == ours.hash
  small.assert_same(again, tokenizers.Tokenizer.from_file(str(path)))
  assert hf_tokenizer.load(tmp_path / 'w' / 'tokenizer.json').hash == ours.hash


def test_the_rule_is_said_in_words(spec, tmp_path):
  rules = {}
  for name in ('as it is', 'tinypython_2k', 'cl100k', 'two splits', 'no cuts'):
    path = small.write_spec(
      tmp_path / 'tokenizer.json', small.with_settings(spec, **_HONOURED[name])
    )
    rules[name] = hf_tokenizer.load(path).rule
  assert f"cut by GPT-2's pattern {GPT2_PATTERN}" in rules['as it is']
  assert "tinypython_2k's pattern" in rules['tinypython_2k']
  assert f'by its own pattern {_CL100K}' in rules['cl100k']
  assert (
    'by pattern \\p{N}{1,3}, MergedWithPrevious, then by string  ,'
    in (rules['two splits'])
  )
  assert 'between its matches' in rules['two splits']
  assert 'not at all' in rules['no cuts']
