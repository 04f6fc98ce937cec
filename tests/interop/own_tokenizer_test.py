"""Which files are a model's tokenizer, and what decides how text is cut."""

import json

import pytest
import tokenizers
from tokenizers import normalizers

from sparse_interp.data.cutting import GPT2_PATTERN, SPLIT_PATTERN
from sparse_interp.interop import own_tokenizer
from tests.interop.hugging_face import small_tokenizers as small

_NAMES = (('vocab.json', 'merges.txt'), ('encoder.json', 'vocab.bpe'))


def _write(path, **fields):
  path.write_text(json.dumps(fields))


@pytest.fixture
def theirs():
  return small.train()


@pytest.mark.parametrize('names', _NAMES)
@pytest.mark.parametrize('kind', ['gpt2', 'gpt_neox'])
def test_the_family_decides_how_two_files_cut(tmp_path, theirs, names, kind):
  small.write_pair(tmp_path, theirs, names)
  found = own_tokenizer.find(tmp_path, tmp_path, kind)
  assert (found.files, found.why) == (names, f'the model is a {kind}')
  assert found.tokenizer.pattern == GPT2_PATTERN
  given = small.texts()
  if kind == 'gpt_neox':
    theirs.normalizer = normalizers.NFC()
    given = [text for text in given if found.tokenizer.can_encode(text)]
  small.assert_same(found.tokenizer, theirs, given)
  for name in names:
    again = own_tokenizer.find(tmp_path / name, tmp_path / 'x', kind)
    assert again.tokenizer.hash == found.tokenizer.hash


def test_the_name_in_a_released_configuration_decides(tmp_path):
  split = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(SPLIT_PATTERN), 'isolated'
      ),
      tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False),
    ]
  )
  theirs = small.train(pre_tokenizer=split)
  small.write_pair(tmp_path, theirs, _NAMES[1])
  model = tmp_path / 'model'
  model.mkdir()
  for fields in ({}, {'tokenizer_name': 'tinypython_2k'}):
    _write(model / 'beeg_config.json', **fields)
    found = own_tokenizer.find(tmp_path, model, 'released')
    assert found.tokenizer.pattern == SPLIT_PATTERN
    small.assert_same(found.tokenizer, theirs)
  _write(model / 'beeg_config.json', tokenizer_name='gpt2')
  found = own_tokenizer.find(tmp_path, model, 'released')
  assert found.tokenizer.pattern == GPT2_PATTERN
  assert found.why == 'tokenizer_name is gpt2'
  for name in ('cl100k_base', 3, ['gpt2']):
    _write(model / 'beeg_config.json', tokenizer_name=name)
    with pytest.raises(ValueError, match='have tokenizer_name among') as info:
      own_tokenizer.find(tmp_path, model, 'released')
    assert '\n' not in str(info.value)


@pytest.mark.parametrize('place', ['tokenizer_config.json', 'config.json'])
def test_the_class_that_is_named_decides(tmp_path, theirs, place):
  small.write_pair(tmp_path, theirs)
  _write(tmp_path / place, tokenizer_class='GPT2TokenizerFast')
  found = own_tokenizer.find(tmp_path, tmp_path, 'gpt_neox')
  assert found.why == 'tokenizer_class is GPT2TokenizerFast'
  small.assert_same(found.tokenizer, theirs)
  for name in ('CLIPTokenizer', 'Qwen2Tokenizer', 'PreTrainedTokenizerFast', 7):
    _write(tmp_path / place, tokenizer_class=name)
    with pytest.raises(ValueError, match='have tokenizer_class among') as info:
      own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
    assert repr(name) in str(info.value)
    assert '\n' not in str(info.value)


@pytest.mark.parametrize(
  'setting',
  ['add_prefix_space', 'add_bos_token', 'do_lower_case', 'auto_map'],
)
@pytest.mark.parametrize('whole', [False, True])
def test_settings_beside_that_change_texts_are_refused(
  tmp_path, theirs, setting, whole
):
  if whole:
    theirs.save(str(tmp_path / 'tokenizer.json'))
  else:
    small.write_pair(tmp_path, theirs)
  _write(tmp_path / 'tokenizer_config.json', **{setting: False})
  assert own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
  _write(tmp_path / 'tokenizer_config.json', **{setting: True})
  with pytest.raises(ValueError, match=f'have {setting} false, got True'):
    own_tokenizer.find(tmp_path, tmp_path, 'gpt2')


def test_a_whole_tokenizer_goes_before_two_files_that_agree(tmp_path, theirs):
  assert own_tokenizer.find(tmp_path, tmp_path, 'gpt2') is None
  theirs.save(str(tmp_path / 'tokenizer.json'))
  small.write_pair(tmp_path, theirs)
  small.write_pair(tmp_path, theirs, _NAMES[1])
  found = own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
  assert found.files == ('tokenizer.json',)
  small.assert_same(found.tokenizer, theirs)
  # One of them is of another model.
  for name, old, new in (
    ('vocab.json', '"!": 1, "\\"": 2', '"!": 2, "\\"": 1'),
    ('vocab.bpe', 'r e\n', ''),
  ):
    before = (tmp_path / name).read_text()
    assert old in before
    (tmp_path / name).write_text(before.replace(old, new))
    with pytest.raises(ValueError, match='must hold one tokenizer') as info:
      own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
    assert 'tokenizer.json' in str(info.value)
    (tmp_path / name).write_text(before)
  # The merges, or the vocabulary, alone.
  (tmp_path / 'tokenizer.json').unlink()
  (tmp_path / 'vocab.json').unlink()
  with pytest.raises(ValueError, match=r'vocab\.json must be readable'):
    own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
  (tmp_path / 'merges.txt').unlink()
  (tmp_path / 'vocab.bpe').unlink()
  with pytest.raises(ValueError, match=r'vocab\.bpe must be readable'):
    own_tokenizer.find(tmp_path, tmp_path, 'gpt2')


def test_two_pairs_of_files_must_agree(tmp_path, theirs):
  small.write_pair(tmp_path, theirs)
  small.write_pair(tmp_path, small.train(size=300), _NAMES[1])
  with pytest.raises(ValueError, match='one tokenizer, got others in') as info:
    own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
  assert 'encoder.json and vocab.json' in str(info.value)
  found = own_tokenizer.find(tmp_path / 'vocab.json', tmp_path, 'gpt2')
  small.assert_same(found.tokenizer, theirs)


def test_special_tokens_may_be_declared_beside_two_files(tmp_path, theirs):
  small.write_pair(tmp_path, theirs)
  size = theirs.get_vocab_size()
  token = small.added(0, small.END, special=True)
  other = small.added(0, 'turn over', special=True)
  declared = {'0': token, str(size): other}
  _write(tmp_path / 'tokenizer_config.json', added_tokens_decoder=declared)
  _write(tmp_path / 'added_tokens.json', **{'turn over': size, '<x>': size + 1})
  found = own_tokenizer.find(tmp_path, tmp_path, 'gpt2').tokenizer
  assert found.special_tokens == {
    small.END: 0,
    'turn over': size,
    '<x>': size + 1,
  }
  small.assert_same(found, theirs, ['turn over <x>', *small.texts()])
  for wrong, expected in (
    ({'plain': size + 2}, "special tokens alone .* added token 'plain'"),
    ({'<x>': size + 5}, 'each once'),
    ({small.END: 5}, 'one id for each token'),
    ({'<x>': True}, 'one id for each token'),
  ):
    _write(tmp_path / 'added_tokens.json', **wrong)
    with pytest.raises(ValueError, match=expected) as info:
      own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
    assert '\n' not in str(info.value)


def test_tokens_declared_beside_a_whole_tokenizer_must_be_its_own(
  tmp_path, theirs
):
  size = theirs.get_vocab_size()
  spec = small.spec_of(theirs)
  runs = small.added(size, '   ', normalized=True)
  spec['added_tokens'].append(runs)
  small.write_spec(tmp_path / 'tokenizer.json', spec)
  token = small.added(0, small.END, special=True)
  for declared, part in (
    ({'0': token, str(size): runs}, None),
    # As transformers writes it for GPT-2; nobody reads it from texts.
    ({'0': {**token, 'normalized': True}}, None),
    ({str(size): {**runs, 'normalized': False}}, 'normalized=False'),
    ({str(size): {**runs, 'lstrip': True}}, 'lstrip=True'),
    ({str(size): {**runs, 'special': True}}, 'special=True'),
    ({'0': {**token, 'special': False}}, 'special=False'),
    ({'321': {**token, 'content': '<|x|>'}}, "'<|x|>' with id 321"),
    ({'x': token}, "'x'"),
    ([token], 'as an object'),
    ({'0': 3}, '3'),
  ):
    _write(tmp_path / 'tokenizer_config.json', added_tokens_decoder=declared)
    if part is None:
      assert own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
      continue
    with pytest.raises(ValueError, match=r'must (declare|have)') as info:
      own_tokenizer.find(tmp_path, tmp_path, 'gpt2')
    assert part in str(info.value)
    assert '\n' not in str(info.value)
