"""The tokenizer of an imported model: found, said, honoured or refused."""

import json
import pathlib
import shutil

import fsspec
import numpy as np
import pytest
import tokenizers
from tokenizers import normalizers

from experiments import import_model as experiment
from sparse_interp import main
from sparse_interp.data.cutting import GPT2_PATTERN, SPLIT_PATTERN
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.interop.openai import openai_release
from sparse_interp.models import GPTConfig
from sparse_interp.runs import pretrained
from tests.interop.hugging_face import hf_reference
from tests.interop.hugging_face import small_tokenizers as small
from tests.interop.hugging_face.hf_files import module_of
from tests.interop.small_circuit import make_params
from tests.refusals import assert_refused

_TEXT = 'def load(path):\n  for line in open(path):\n    print(line)\n' * 60


@pytest.fixture(scope='module')
def theirs():
  return small.train()


def _model(directory, case, size):
  """A model of a family with so many rows."""
  if case == 'released':
    config = GPTConfig(
      vocab_size=size,
      n_layer=1,
      d_model=16,
      d_head=4,
      n_head=4,
      d_mlp=64,
      context_length=24,
      position='added',
    )
    openai_release.save(directory, config, make_params(config))
    return
  config, params = module_of(case).load(hf_reference.DIRECTORY / case)
  config = type(config)(**{**vars(config), 'vocab_size': size})
  wte = np.resize(
    np.asarray(params['wte']['embedding']), (size, config.d_model)
  )
  params = params | {'wte': {'embedding': wte}}
  if not config.tied_unembed:
    params['lm_head'] = {'kernel': wte.T}
  module_of(case).save(directory, config, params)


def _config(tmp_path, **fields):
  (tmp_path / 'text.py').write_text(_TEXT)
  config = experiment.get_config()
  config.update(
    {'source': str(tmp_path / 'm'), 'text': str(tmp_path / 'text.py')} | fields
  )
  return config


def _summary(tmp_path):
  return json.loads((tmp_path / 'w' / 'summary.json').read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
  ('case', 'beside', 'far'),
  [
    ('gpt2', True, False),
    ('gpt_neox', False, False),
    ('gpt_neox', True, True),
    ('gpt2', False, True),
  ],
)
def test_vocabulary_and_merges_are_found_and_the_rule_is_said(
  theirs, tmp_path, capsys, case, beside, far
):
  _model(tmp_path / 'm', case, 330)
  place = tmp_path / 'm' if beside else tmp_path / 't'
  place.mkdir(exist_ok=True)
  small.write_pair(place, theirs)
  fields = {} if beside else {'tokenizer': str(place)}
  if far:
    system = fsspec.filesystem('memory')
    for path in (*tmp_path.glob('m/*'), *tmp_path.glob('t/*')):
      system.pipe(
        f'/{case}{beside}/{path.parent.name}/{path.name}', path.read_bytes()
      )
    shutil.rmtree(tmp_path / 'm')
    fields = dict.fromkeys(fields, f'memory://{case}{beside}/t')
    fields['source'] = f'memory://{case}{beside}/m'
  main.run(_config(tmp_path, **fields), str(tmp_path / 'w'))
  said = _summary(tmp_path)['tokenizer']
  assert said['files'] == ['vocab.json', 'merges.txt']
  assert said['pattern'] == GPT2_PATTERN
  assert said['rows_without_entry'] == 330 - said['entries'] == 10
  assert "GPT-2's pattern" in said['rule']
  assert f'the model is a {case}' in said['rule']
  assert '10 rows of the model have no entry' in said['rule']
  assert said['rule'] in capsys.readouterr().out
  ours = pretrained.load(tmp_path / 'w').tokenizer
  assert ours.eot == said['end_of_text'] == 0
  windows = np.load(tmp_path / 'w' / 'pretraining_sample.npy')
  assert ours.decode(windows[0][1:]).startswith('def load(path):')
  given = [text for text in small.texts() if ours.can_encode(text)]
  if case == 'gpt_neox':
    theirs = tokenizers.Tokenizer.from_str(theirs.to_str())
    theirs.normalizer = normalizers.NFC()
  small.assert_same(ours, theirs, given)
  assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] == '.') == []


@pytest.mark.slow
def test_the_files_of_a_released_model_cut_as_published(tmp_path):
  split = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(SPLIT_PATTERN), 'isolated'
      ),
      tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False),
    ]
  )
  theirs = small.train(pre_tokenizer=split)
  _model(tmp_path / 'm', 'released', 320)
  small.write_pair(tmp_path / 'm', theirs, ('encoder.json', 'vocab.bpe'))
  main.run(_config(tmp_path), str(tmp_path / 'w'))
  said = _summary(tmp_path)['tokenizer']
  assert said['pattern'] == SPLIT_PATTERN
  assert 'tokenizer_name is tinypython_2k' in said['rule']
  ours = Tokenizer.load(tmp_path / 'w' / 'tokenizer.json')
  small.assert_same(ours, theirs)


def test_a_tokenizer_json_like_that_of_pythia_is_honoured(
  theirs, tmp_path, capsys
):
  spec = small.spec_of(theirs)
  spec['normalizer'] = {'type': 'NFC'}
  spec['added_tokens'] += [
    small.added(320 + i, ' ' * (5 - i), normalized=True) for i in range(4)
  ]
  _model(tmp_path / 'm', 'gpt_neox', 384)
  path = small.write_spec(tmp_path / 'm' / 'tokenizer.json', spec)
  text = tmp_path / 'text.jsonl'
  lines = [_TEXT, 'e\u0301 is not NFC', _TEXT]
  text.write_text(''.join(json.dumps({'text': t}) + '\n' for t in lines))
  main.run(_config(tmp_path, text=str(text)), str(tmp_path / 'w'))
  assert '1 documents skipped, which are not NFC' in capsys.readouterr().out
  ours = Tokenizer.load(tmp_path / 'w' / 'tokenizer.json')
  given = [text for text in small.texts() if ours.can_encode(text)]
  small.assert_same(ours, tokenizers.Tokenizer.from_file(str(path)), given)
  assert _summary(tmp_path)['tokenizer']['end_of_text'] == 0


@pytest.mark.parametrize('named', [False, True])
def test_what_would_change_text_ends_the_import_in_one_line(
  theirs, tmp_path, capfd, named
):
  _model(tmp_path / 'm', 'gpt2', 320)
  spec = small.spec_of(theirs) | {'normalizer': {'type': 'Lowercase'}}
  place = tmp_path / ('t' if named else 'm')
  place.mkdir(exist_ok=True)
  small.write_spec(place / 'tokenizer.json', spec)
  config = _config(tmp_path, **({'tokenizer': str(place)} if named else {}))
  assert_refused(
    capfd,
    config,
    tmp_path / 'w',
    'must have no normalizer but',
    'Lowercase',
    '--config.tokenizer=none',
  )
  assert not (tmp_path / 'w').exists()
  config.tokenizer = 'none'
  main.run(config, str(tmp_path / 'w'))
  assert _summary(tmp_path)['tokenizer'] is None
  assert not (tmp_path / 'w' / 'tokenizer.json').exists()


@pytest.mark.parametrize(
  ('fields', 'part'),
  [
    ({'tokenizer': '{}/m'}, 'must be a directory with tokenizer.json, with'),
    ({'tokenizer': '{}/m/nothing.json'}, 'must be a directory with'),
    ({'tokenizer': 'memory://nowhere/x'}, 'tokenizer must name files that are'),
    ({'tokenizer': 'memory://nowhere/a.json'}, 'nothing at memory://nowhere'),
    ({'tokenizer': 'sftq://a/b'}, 'tokenizer must be a path of a kind'),
  ],
)
def test_a_tokenizer_that_is_not_there_is_refused(
  tmp_path, capfd, fields, part
):
  _model(tmp_path / 'm', 'gpt2', 320)
  fields = {k: v.format(tmp_path) for k, v in fields.items()}
  assert_refused(capfd, _config(tmp_path, **fields), tmp_path / 'w', part)
  assert not (tmp_path / 'w').exists()
  assert not [p for p in pathlib.Path(tmp_path).iterdir() if p.name[0] == '.']


def test_more_entries_than_the_model_are_refused(theirs, tmp_path, capfd):
  _model(tmp_path / 'm', 'gpt2', 319)
  small.write_pair(tmp_path / 'm', theirs)
  parts = 'at most the 319 entries', 'got 320 in vocab.json, merges.txt'
  assert_refused(capfd, _config(tmp_path), tmp_path / 'w', *parts)
