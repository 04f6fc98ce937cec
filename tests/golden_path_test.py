"""The lines that the package opens with run as they stand, on any model."""

import os
import pathlib
import re

import jax
import jax.numpy as jnp
import nbclient
import nbformat
import numpy as np
import pytest

import sparse_interp as si
from experiments import import_model as import_experiment
from sparse_interp import main
from sparse_interp.circuits.circuit import load, save
from sparse_interp.circuits.extracted import small_model
from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.interop.openai import openai_release
from tests import known_text, whole_runs
from tests.interop.small_circuit import make_params

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.slow

# A model that learns little in a minute solves little: another behaviour, and
# a loss that it reaches. Everything else is as it stands.
_INSTEAD = {
  "'final_kwarg'": "'else_elif'",
  'seed=0)': (
    "si.PruneConfig(ablation='mean', target_loss=0.55, steps=10, "
    'selection_pairs=16, '
    'holdout_pairs=16, batch_pairs=8), seed=0, train_pairs=48, test_pairs=16)'
  ),
}


def _lines() -> list[str]:
  """The Python of the docstring of the package."""
  lines = re.findall(r'^    (\S.*)$', si.__doc__, re.M)
  assert lines[0] == 'import sparse_interp as si'
  for old, new in _INSTEAD.items():
    assert sum(old in line for line in lines) == 1
    lines = [line.replace(old, new) for line in lines]
  return lines


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  """Where runs/quickstart is."""
  directory = tmp_path_factory.mktemp('golden')
  workdir = directory / 'runs' / 'quickstart'
  whole_runs.copy_of_finished(tmp_path_factory, workdir)
  (workdir / 'means.npz').unlink()  # what is loaded must measure them
  return directory


def test_the_lines_run_in_a_notebook(directory, monkeypatch):
  cells = [[]]
  for line in _lines():
    cells[-1].append(line)
    name = line.partition(' = ')[0]
    if name in ('circuit', 'verdict'):
      cells[-1].append(name)
      cells.append([])
  notebook = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell('\n'.join(cell)) for cell in cells]
  )
  flags = os.environ['XLA_FLAGS'].replace('count=8', 'count=1')
  monkeypatch.setenv('XLA_FLAGS', flags)
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(directory)}},
  ).execute()
  drawing, table, nothing = (cell['outputs'] for cell in notebook.cells)
  assert '<svg' in drawing[-1]['data']['text/html']
  assert drawing[-1]['data']['text/plain'].count('\n') == 0
  assert '<table>' in table[-1]['data']['text/html']
  assert 'loss_calibrated' in table[-1]['data']['text/plain']
  # Library code does not print.
  shown = [*drawing[:-1], *table[:-1], *nothing]
  assert not [output for output in shown if output.get('name') == 'stdout']
  assert '<svg' in (directory / 'circuit.html').read_text()
  assert (directory / 'runs' / 'quickstart' / 'means.npz').is_file()


def _whole_path(model, task, config, tmp_path, pairs):
  circuit = si.prune(model, task, config, seed=0, **pairs)
  verdict = si.audit(model, circuit, task, test_pairs=pairs['test_pairs'])
  small = si.extract(model, circuit)
  page = tmp_path / 'circuit.html'
  si.write_page(page, model, [circuit], [verdict])
  save(circuit, tmp_path / 'circuit')
  assert load(tmp_path / 'circuit').node_names() == circuit.node_names()
  assert circuit._repr_html_().count('data-node=') == circuit.node_count
  assert task.name in page.read_text()
  tokens = jnp.zeros((1, 4), jnp.int32)
  assert np.isfinite(small_model.apply(small, tokens=tokens)).all()
  measured = verdict.numbers['loss_calibrated'].value
  assert measured == circuit.metrics['test_loss']
  return circuit, verdict


def test_the_same_from_a_model_trained_in_memory(tmp_path, directory):
  model = si.pretrain('quickstart:tiny')
  assert model.workdir is None
  assert model.hash == si.load(directory / 'runs' / 'quickstart').hash
  config = si.PruneConfig(
    ablation='mean',
    target_loss=0.55,
    steps=10,
    selection_pairs=16,
    holdout_pairs=16,
    batch_pairs=8,
  )
  pairs = {'train_pairs': 48, 'test_pairs': 16}
  _whole_path(model, si.task('else_elif'), config, tmp_path, pairs)


def _foreign_params(config, tokenizer):
  """The known circuit in a model of the released format."""

  def start(path, leaf):
    is_scale = path[-1].key == 'scale'
    return np.full(leaf.shape, float(is_scale), np.float32)

  params = jax.tree_util.tree_map_with_path(start, make_params(config))
  a, b, x, y = (tokenizer.encode(letter)[0] for letter in 'abxy')
  rng = np.random.default_rng(0)
  embedding = params['wte']['embedding']
  embedding[:, 4:] = rng.normal(0, 0.5, embedding[:, 4:].shape)
  embedding[a, 0], embedding[b, 0] = 1, -1
  attn = params['h_0']['attn']
  attn['c_attn']['kernel'][0, 2 * config.d_attn + 5] = 6
  attn['c_proj']['kernel'][5, 3] = 6
  params['lm_head']['kernel'][3, [x, y]] = 1, -1
  return jax.tree.map(jnp.asarray, params)


def test_the_same_from_an_imported_model(tmp_path):
  tokenizer = train_tokenizer(['ab'], 257)
  config = si.GPTConfig(
    vocab_size=257,
    n_layer=1,
    d_model=16,
    d_head=4,
    n_head=4,
    d_mlp=64,
    context_length=24,
    position='added',
    activation_density=None,
  )
  params = _foreign_params(config, tokenizer)
  openai_release.save(tmp_path / 'model', config, params)
  tokenizer.save(tmp_path / 'tokenizer' / 'tokenizer.json')
  (tmp_path / 'text').mkdir()
  (tmp_path / 'text' / 'a.py').write_text('cab dad):\n' * 400)
  asked = import_experiment.get_config()
  asked.source = str(tmp_path / 'model')
  asked.tokenizer = str(tmp_path / 'tokenizer')
  asked.text = str(tmp_path / 'text')
  main.run(asked, str(tmp_path / 'w'))
  model = si.load(tmp_path / 'w')
  circuit, verdict = _whole_path(
    model, known_text.TASK, known_text.CONFIG, tmp_path, known_text.PAIRS
  )
  assert ('0.attn.v:5', '0.attn.resid_delta:3', 6.0) in circuit.edge_names()
  # Hardly anything else in that model leads anywhere.
  assert set(verdict.missed) == {'size_share'}
