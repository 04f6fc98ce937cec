"""The artifact: documented, whole or absent, clear when damaged."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sparse_interp.circuits import circuit as artifact
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.extracted import extract
from sparse_interp.files import circuit_files
from sparse_interp.models.params_hash import hash_params


@pytest.fixture
def circuit(known):
  nodes = {
    site: np.array(known.nodes.get(site, []), int) for site in known.sites
  }
  return artifact.Circuit(
    task='evidence',
    description='which was seen',
    config=known.config,
    gates='nodes',
    sites=known.sites,
    nodes=nodes,
    edges=artifact.list_edges(
      known.config,
      known.params,
      known.model.edges,
      known.units.parts(known.units.mask_of(nodes)),
      known.sites,
    ),
    means={s: np.full(w, 0.5, np.float32) for s, w in known.sites.items()},
    scores={s: np.linspace(0, 1, w) for s, w in known.sites.items()},
    scale=2.0,
    shift=-0.25,
    ablation={'kind': 'mean', 'over': 'pretraining', 'tokens': 10},
    formula={'task_loss': 'a sentence'},
    metrics={'test_loss': 0.1, 'test_loss_interval': [0.05, 0.2]},
    prune_config={'steps': 3},
    history={'step': [1], 'task_loss': [0.5], 'nodes': [9]},
    examples=[{'pieces': ['a'], 'answer': 'b', 'probability': 0.9}],
    example_tokens=np.array([[1, 2]], np.int32),
    activations={
      s: np.ones((1, 2, len(k)), np.float32) for s, k in nodes.items()
    },
    provenance={'seed': 1, 'params_hash': hash_params(known.params)},
  )


def test_no_field_of_a_circuit_is_set_anew(circuit):
  with pytest.raises(dataclasses.FrozenInstanceError):
    circuit.shift = 0.0


def test_round_trip_keeps_every_field(circuit, tmp_path):
  artifact.save(circuit, tmp_path / 'deep' / 'task')
  loaded = artifact.load(tmp_path / 'deep' / 'task')
  for field in dataclasses.fields(artifact.Circuit):
    before = getattr(circuit, field.name)
    after = getattr(loaded, field.name)
    if field.name in ('nodes', 'means', 'scores', 'activations', 'sites'):
      assert list(before) == list(after), field.name
    jax.tree.map(
      lambda a, b: (
        np.testing.assert_allclose(a, b, rtol=1e-6)
        if isinstance(a, np.ndarray)
        else None
      ),
      before,
      after,
    )
    if not isinstance(before, (dict, tuple, np.ndarray)):
      assert before == after, field.name
  assert (loaded.node_count, loaded.edge_count) == (4, 2)


def test_parts_of_an_edge_circuit_are_those_it_was_made_of(circuit, known):
  units = units_lib.make(known.model, 'edges')
  made = units.parts(known.true_units(units))
  edges = artifact.list_edges(
    known.config, known.params, known.model.edges, made, known.sites
  )
  read = artifact.parts_of_circuit(
    dataclasses.replace(circuit, gates='edges', nodes=made.nodes, edges=edges),
    known.model.edges,
  )
  assert (read.node_count, read.edge_count) == (4, 2)
  jax.tree.map(np.testing.assert_array_equal, read.edges, made.edges)


def test_circuits_from_before_edge_gates_are_circuits_of_nodes(
  circuit, tmp_path
):
  artifact.save(circuit, tmp_path)
  path = tmp_path / 'circuit.json'
  fields = json.loads(path.read_text())
  assert fields.pop('gates') == 'nodes'
  del fields['sha256']
  path.write_text(json.dumps(fields))
  assert artifact.load(tmp_path).gates == 'nodes'


def test_models_from_before_a_switch_have_its_default(circuit, tmp_path):
  artifact.save(circuit, tmp_path)
  path = tmp_path / 'circuit.json'
  fields = json.loads(path.read_text())
  del fields['sha256']
  new = 'norm_eps', 'parallel_residual', 'rotary_fraction', 'rotary_base'
  assert [fields['model'].pop(name) for name in new] == [None, False, 1, 1e4]
  path.write_text(json.dumps(fields))
  assert artifact.load(tmp_path).config == circuit.config


def test_files_follow_the_documented_schema(circuit, known, tmp_path):
  artifact.save(circuit, tmp_path)
  fields = json.loads((tmp_path / 'circuit.json').read_text())
  assert fields['schema_version'] == 1
  assert fields['model']['d_model'] == 8
  assert [s for s, _ in fields['sites']] == list(known.sites)
  assert fields['nodes']['0.attn.v'] == [5]
  assert (fields['node_count'], fields['edge_count']) == (4, 2)
  assert fields['calibration'] == {'scale': 2.0, 'shift': -0.25}
  with np.load(tmp_path / 'circuit.npz') as arrays:
    sites = [fields['sites'][i][0] for i in arrays['edges/source_site']]
    assert sites == ['0.attn.act_in', '0.attn.v']
    assert arrays['edges/weight'].tolist() == [6.0, 6.0]
    assert arrays['edges/target'].dtype == np.int32
    assert arrays['mean/final_resid'].shape == (8,)
    assert arrays['activation/0.attn.v'].shape == (1, 2, 1)
    assert arrays['examples/tokens'].tolist() == [[1, 2]]
  assert {p.name for p in tmp_path.iterdir()} == {'circuit.json', 'circuit.npz'}


def test_a_full_disk_leaves_the_earlier_circuit_untouched(
  circuit, tmp_path, monkeypatch
):
  artifact.save(circuit, tmp_path)
  before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

  def full(*args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(artifact.os, 'fsync', full)
  with pytest.raises(OSError, match='No space'):
    artifact.save(dataclasses.replace(circuit, scale=9.0), tmp_path)
  assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_kill_between_the_files_leaves_no_circuit(
  circuit, tmp_path, monkeypatch
):
  artifact.save(circuit, tmp_path)
  replace = artifact.os.replace
  calls = []

  def killed(source, target):
    calls.append(target)
    if len(calls) == 2:
      raise KeyboardInterrupt
    replace(source, target)

  monkeypatch.setattr(artifact.os, 'replace', killed)
  with pytest.raises(KeyboardInterrupt):
    artifact.save(dataclasses.replace(circuit, scale=9.0), tmp_path)
  with pytest.raises(ValueError, match='must exist, got no file; prune again'):
    artifact.load(tmp_path)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda d: (d / 'circuit.json').unlink(), 'circuit.json must exist'),
    (lambda d: (d / 'circuit.npz').unlink(), 'circuit.npz must exist'),
    (
      lambda d: (d / 'circuit.npz').write_bytes(
        (d / 'circuit.npz').read_bytes()[:200]
      ),
      'must be the one that circuit.json was written with',
    ),
    (
      lambda d: (d / 'circuit.json').write_text('{"schema_version": 1'),
      'must be whole JSON',
    ),
    (
      lambda d: (d / 'circuit.json').write_text('{"schema_version": 7}'),
      'must be 1, got 7',
    ),
    (
      lambda d: (d / 'circuit.json').write_text('{"schema_version": 1}'),
      "must have every field, got none named 'model'",
    ),
  ],
)
def test_damaged_files_are_named_in_one_line(
  circuit, tmp_path, damage, message
):
  artifact.save(circuit, tmp_path)
  damage(tmp_path)
  with pytest.raises(ValueError, match=message) as error:
    artifact.load(tmp_path)
  assert '\n' not in str(error.value)


def test_extract_refuses_another_models_parameters(circuit, known):
  extract.extract_circuit(circuit, known.params)
  other = jax.tree.map(lambda x: x * 1.5, known.params)
  with pytest.raises(ValueError, match='params must be those of the model'):
    extract.extract_circuit(circuit, other)


def test_edited_numbers_and_arrays_of_another_circuit_are_refused(
  circuit, tmp_path
):
  artifact.save(circuit, tmp_path / 'a')
  artifact.save(dataclasses.replace(circuit, scale=9.0), tmp_path / 'b')
  other = dataclasses.replace(circuit, example_tokens=np.array([[3, 2]]))
  artifact.save(other, tmp_path / 'c')
  # The same arrays may stand beside either description.
  (tmp_path / 'b/circuit.npz').replace(tmp_path / 'a/circuit.npz')
  artifact.load(tmp_path / 'a')
  (tmp_path / 'c/circuit.npz').replace(tmp_path / 'a/circuit.npz')
  with pytest.raises(ValueError, match='or that of another circuit'):
    artifact.load(tmp_path / 'a')
  path = tmp_path / 'a/circuit.json'
  path.write_text(path.read_text().replace('"scale": 2.0', '"scale": 3.0'))
  with pytest.raises(ValueError, match='does not match its sha256'):
    artifact.load(tmp_path / 'a')


def test_every_reader_notices_every_flipped_bit(circuit, tmp_path):
  artifact.save(circuit, tmp_path)
  before = artifact.load(tmp_path)
  rng = np.random.default_rng(0)
  for name in ('circuit.json', 'circuit.npz'):
    written, refused = (tmp_path / name).read_bytes(), 0
    for bit in rng.integers(8 * len(written), size=60).tolist():
      damaged = bytearray(written)
      damaged[bit // 8] ^= 1 << bit % 8
      (tmp_path / name).write_bytes(damaged)
      try:
        assert artifact.load(tmp_path).provenance == before.provenance
        assert artifact._description(before) == artifact._description(
          artifact.load(tmp_path)
        )
      except ValueError:
        refused += 1
        with pytest.raises(ValueError, match=r'circuit\.(json|npz) must'):
          circuit_files.read(tmp_path)
    (tmp_path / name).write_bytes(written)
    assert refused > 40


def test_parameters_are_hashed_once(known, monkeypatch):
  params = jax.tree.map(lambda leaf: leaf + 0, known.params)
  expected = hash_params(params)
  assert expected == hash_params(jax.device_get(params))
  monkeypatch.setattr(artifact.np, 'ascontiguousarray', None)
  assert hash_params(params) == expected
  monkeypatch.undo()
  # Arrays that can change are looked at every time.
  arrays = {'a': np.zeros(3, np.float32)}
  before = hash_params(arrays)
  arrays['a'][1] = 1
  assert hash_params(arrays) != before
