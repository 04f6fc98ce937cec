"""The import run: what it writes, proves and refuses."""

import dataclasses
import json
import pathlib
import shutil

import fsspec
import jax
import numpy as np
import pytest

from experiments import import_model as experiment
from sparse_interp import main
from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.files import model_files
from sparse_interp.interop.openai import openai_release
from sparse_interp.loading import load
from sparse_interp.models import GPTConfig
from sparse_interp.models.means import site_means
from sparse_interp.runs import import_model, pretrained
from sparse_interp.training import pretrain
from sparse_interp.viewer.report import write_report
from tests.interop.small_circuit import make_params
from tests.refusals import assert_refused, content

DATA = pathlib.Path(__file__).parents[1] / 'data'
PLAIN = DATA / 'released_format' / 'plain'
TEXT = 'def load(path):\n  for line in open(path):\n    print(line)\n' * 300


def make_config(source, **fields):
  config = experiment.get_config()
  config.update({'source': str(source), **fields})
  return config


def summary_of(workdir):
  return json.loads((workdir / 'summary.json').read_text())


@pytest.mark.parametrize(
  'case',
  [
    'released_format/plain',
    'hf_models/gpt2',
    *(
      pytest.param(case, marks=pytest.mark.slow)
      for case in (
        'released_format/sink',
        'released_format/cat_pos_emb_relu',
        'released_format/stray_config_fields',
        'hf_models/gpt_neox',
      )
    ),
  ],
)
def test_a_model_of_every_kind_becomes_a_workdir_with_a_proof(
  case, tmp_path, capsys
):
  config = make_config(DATA / case, reference=str(DATA / case / 'io.npz'))
  main.run(config, str(tmp_path / 'w'))
  imported = summary_of(tmp_path / 'w')['imported']
  assert imported['parity']['logits'] <= 5e-5
  kind = case.split('/')[0]
  if kind == 'released_format':
    assert imported['kind'] == 'released'
    assert imported['parity']['activations'] <= 5e-5
    # Recorded: 11 hooks in each of two layers, and the last stream.
    assert imported['parity']['sites'] == 23
  else:
    assert imported['kind'] == case.split('/')[1]
  model, params = pretrain.load_model(tmp_path / 'w')
  printed = capsys.readouterr().out
  assert f'max |logit difference| {imported["parity"]["logits"]:.2e}' in printed
  assert f'parameters: {imported["parameters"]:,}' in printed
  assert imported['parameters'] == sum(x.size for x in jax.tree.leaves(params))
  nonzeros = summary_of(tmp_path / 'w')['nonzeros']
  wte = np.asarray(params['wte']['embedding'])
  assert nonzeros['wte/embedding']['found'] == np.count_nonzero(wte)
  assert nonzeros['wte/embedding']['size'] == model.vocab_size * model.d_model
  assert 'no tokenizer' in printed


def test_pruning_says_what_a_model_without_text_lacks(tmp_path):
  main.run(make_config(PLAIN), str(tmp_path / 'w'))
  with pytest.raises(ValueError, match=r'must hold text .*config\.tokenizer'):
    pretrained.load(tmp_path / 'w')
  model = load(tmp_path / 'w')
  assert model.tokenizer is None
  assert model.windows is None
  assert model.source == str(tmp_path / 'w')


def test_fields_that_are_not_used_are_said_and_kept(tmp_path, capsys):
  case = PLAIN.parent / 'stray_config_fields'
  main.run(make_config(case), str(tmp_path / 'w'))
  notes = summary_of(tmp_path / 'w')['imported']['notes']
  assert any('use_tied_aux_matrix=False is not used' in note for note in notes)
  assert 'bigram_table_rank=None is not used' in capsys.readouterr().out


def test_a_second_run_changes_nothing_and_prints_the_proof_again(
  tmp_path, capsys
):
  source, workdir = tmp_path / 'source', tmp_path / 'w'
  shutil.copytree(PLAIN, source)
  config = make_config(
    source / 'final_model.pt', reference=str(source / 'io.npz')
  )
  main.run(config, str(workdir))
  before, first = content(workdir), capsys.readouterr().out
  main.run(config, str(workdir))
  assert content(workdir) == before
  second = capsys.readouterr().out
  assert 'done already' in second
  proof = [line for line in first.splitlines() if 'parity' in line]
  assert proof
  assert proof[0] in second

  # What it was made of may not change behind its back.
  data = bytearray((source / 'final_model.pt').read_bytes())
  data[-1] ^= 1
  (source / 'final_model.pt').write_bytes(data)
  with pytest.raises(ValueError, match='source must hold what this workdir'):
    main.run(config, str(workdir))
  with pytest.raises(ValueError, match='workdir must be new or hold the same'):
    main.run(make_config(source, seed=1), str(workdir))
  assert content(workdir) == before


@pytest.mark.parametrize('last', ['model.json', 'summary.json'])
def test_a_run_killed_in_the_middle_is_finished_by_the_next(tmp_path, last):
  config, workdir = make_config(PLAIN), tmp_path / 'w'
  main.run(config, str(workdir))
  _, before = pretrain.load_model(workdir)
  for name in ('summary.json', 'model.json'):
    (workdir / name).unlink()
    if name == last:
      break
  main.run(config, str(workdir))
  _, after = pretrain.load_model(workdir)
  jax.tree.map(np.testing.assert_array_equal, before, after)
  assert summary_of(workdir)['imported']['kind'] == 'released'


@pytest.mark.parametrize('protocol', ['memory', 'file'])
def test_a_remote_source_is_copied_converted_and_not_kept(protocol, tmp_path):
  source = f'file://{PLAIN}'
  if protocol == 'memory':
    system = fsspec.filesystem('memory')
    for name in ('beeg_config.json', 'final_model.pt'):
      system.pipe(f'/import/{name}', (PLAIN / name).read_bytes())
    source = 'memory://import'
  main.run(make_config(source), str(tmp_path / 'far'))
  main.run(make_config(PLAIN), str(tmp_path / 'near'))
  far, near = (summary_of(tmp_path / w)['imported'] for w in ('far', 'near'))
  assert far == near | {'source': source}
  assert sorted(p.name for p in tmp_path.iterdir()) == ['far', 'near']


def _config_json(tmp_path, text):
  (tmp_path / 'source').mkdir()
  (tmp_path / 'source' / 'config.json').write_text(text)
  (tmp_path / 'source' / 'model.safetensors').write_bytes(b'')
  return {'source': str(tmp_path / 'source')}


@pytest.mark.parametrize(
  ('fields', 'parts'),
  [
    ({'source': ''}, ['source must name a directory']),
    ({'source': '/no/where'}, ['source must be a directory', '/no/where']),
    ({'source': str(DATA)}, ['no final_model.pt or model.safetensors']),
    ({'length': 1}, ['length must be at least 2, got 1']),
    ({'tolerance': 0.0}, ['tolerance must be above 0']),
    ({'sha256': 'abc'}, ['sha256 must be 64 hexadecimal digits']),
    (
      {'reference': str(PLAIN.parent / 'sink' / 'io.npz')},
      ['reference must be met within tolerance 0.001', 'raise'],
    ),
    (
      {'reference': str(PLAIN / 'final_model.pt')},
      ['reference', 'must hold an array tokens'],
    ),
    (
      {'reference': str(DATA / 'hf_models/gpt2/config.json')},
      ['must be a whole npz archive'],
    ),
    ({'tokenizer': '/no/where'}, ['tokenizer must be a directory with']),
    (
      {'tokenizer': str(PLAIN / 'beeg_config.json')},
      ['beeg_config.json must have settings that are known'],
    ),
    ({'source': 'sftq://a/b'}, ['of a kind that fsspec knows']),
  ],
)
def test_what_cannot_be_imported_ends_in_one_line_and_writes_nothing(
  tmp_path, capfd, fields, parts
):
  config = make_config(**({'source': PLAIN} | fields))
  assert_refused(capfd, config, tmp_path / 'w', *parts)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('text', 'part'),
  [
    ('{', 'a damaged config.json'),
    ('[]', 'a config.json that is no object'),
    ('{"model_type": "llama"}', "model_type 'llama'"),
    ('{}', "model_type 'None'"),
    ('{"model_type": ["gpt2"]}', 'model_type'),
  ],
)
def test_other_models_are_refused_by_their_kind(tmp_path, capfd, text, part):
  fields = _config_json(tmp_path, text)
  config = make_config(**fields)
  assert_refused(
    capfd, config, tmp_path / 'w', 'source must hold beeg_config.json', part
  )
  assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
  ('change', 'part'),
  [
    ({'tokens': None}, 'hold an array tokens'),
    ({'logits': np.zeros((2, 3), np.float32)}, 'hold logits as floats of'),
    ({'tokens': np.full((2, 32), 128)}, 'hold tokens below 128'),
    ({'tokens': np.zeros((0, 32), int)}, 'hold tokens as a matrix'),
    ({'act__nowhere': np.zeros(1)}, "sites of the model, not 'nowhere'"),
    ({'logits': np.full((2, 32, 128), np.nan, 'f4')}, 'within tolerance'),
    ({'tokens': np.array([None, {}])}, 'plain arrays'),
  ],
)
def test_a_reference_of_another_form_is_refused(tmp_path, capfd, change, part):
  with np.load(PLAIN / 'io.npz') as archive:
    arrays = {name: archive[name] for name in archive.files} | change
  arrays = {k: v for k, v in arrays.items() if v is not None}
  np.savez(tmp_path / 'io.npz', **arrays)
  config = make_config(PLAIN, reference=str(tmp_path / 'io.npz'))
  assert_refused(capfd, config, tmp_path / 'w', 'reference', part)
  assert not (tmp_path / 'w').exists()


@pytest.fixture(scope='module')
def tokenized(tmp_path_factory):
  """A released model of 300 tokens, a tokenizer for it, and a text."""
  directory = tmp_path_factory.mktemp('tokenized')
  model = GPTConfig(
    vocab_size=300,
    n_layer=1,
    d_model=16,
    d_head=4,
    n_head=4,
    d_mlp=64,
    context_length=24,
    position='added',
  )
  params = make_params(model)
  openai_release.save(directory / 'model', model, params)
  tokenizer = train_tokenizer([TEXT], 300)
  tokenizer.save(directory / 'tokenizer' / 'tokenizer.json')
  (directory / 'text').mkdir()
  for i in range(3):
    (directory / 'text' / f'{i}.py').write_text(TEXT + f'# {i}\n')
  return directory, model, params, tokenizer


def test_tokenizer_and_text_make_what_pruning_loads(
  tokenized, tmp_path, capsys
):
  directory, model, params, tokenizer = tokenized
  config = make_config(
    directory / 'model',
    tokenizer=str(directory / 'tokenizer'),
    text=str(directory / 'text'),
  )
  summary = import_model.import_model(config, str(tmp_path / 'w'))
  windows = np.load(tmp_path / 'w' / model_files.SAMPLE)
  assert windows.shape[1] == 24
  stream = windows.reshape(-1).tolist()
  assert stream[0] == tokenizer.eot
  assert tokenizer.decode(stream[1:200]).startswith(TEXT[:60])
  assert summary['imported']['mean_tokens'] == windows.size
  assert f'{windows.size:,} tokens of {config.text}' in capsys.readouterr().out

  loaded = pretrained.load(tmp_path / 'w')
  assert dataclasses.replace(loaded.config, final_logits_bias=False) == (
    dataclasses.replace(model, final_logits_bias=False)
  )
  assert loaded.tokenizer.hash == tokenizer.hash
  assert loaded.provenance['tokenizer_hash'] == tokenizer.hash
  means = site_means(loaded.config, loaded.params, [windows])
  for site, mean in means.items():
    np.testing.assert_allclose(loaded.means[site], mean, atol=1e-5)
  for name, leaf in params['h_0']['attn'].items():
    for part, value in leaf.items() if isinstance(leaf, dict) else ():
      np.testing.assert_array_equal(
        loaded.params['h_0']['attn'][name][part], value
      )
  write_report(str(tmp_path / 'w'), str(tmp_path / 'report.html'))
  assert (tmp_path / 'report.html').stat().st_size > 1000


def test_a_tokenizer_beside_the_model_is_taken(tokenized, tmp_path):
  directory, _, _, tokenizer = tokenized
  shutil.copytree(directory / 'model', tmp_path / 'model')
  tokenizer.save(tmp_path / 'model' / 'tokenizer.json')
  config = make_config(tmp_path / 'model', text=str(directory / 'text/0.py'))
  summary = import_model.import_model(config, str(tmp_path / 'w'))
  assert summary['tokenizer_hash'] == tokenizer.hash


@pytest.mark.parametrize(
  ('fields', 'part'),
  [
    ({'length': 25}, 'length must be at most the context of the model, 24'),
    ({'text': '/no/where'}, 'must match at least one file'),
    ({'text': '{short}'}, 'text must have at least 24 tokens'),
  ],
)
def test_text_that_does_not_do_is_refused(
  tokenized, tmp_path, capfd, fields, part
):
  directory = tokenized[0]
  (tmp_path / 'short.py').write_text('x = 1\n')
  fields = {'text': str(directory / 'text')} | fields
  fields['text'] = fields['text'].format(short=tmp_path / 'short.py')
  config = make_config(
    directory / 'model', tokenizer=str(directory / 'tokenizer'), **fields
  )
  assert_refused(capfd, config, tmp_path / 'w', part)
  assert not (tmp_path / 'w').exists()


def test_a_tokenizer_of_a_larger_model_is_refused(tokenized, tmp_path, capfd):
  config = make_config(PLAIN, tokenizer=str(tokenized[0] / 'tokenizer'))
  assert_refused(
    capfd, config, tmp_path / 'w', 'at most the 128 entries', 'got 300'
  )
