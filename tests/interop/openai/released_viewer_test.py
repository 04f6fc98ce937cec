"""Circuits of ours as viz_data.pt: what the published viewer needs of it."""

import dataclasses

import numpy as np
import pytest

from sparse_interp.interop.openai import (
  released_circuit,
  released_model,
  released_viewer,
)
from sparse_interp.interop.torch_file import torch_file
from sparse_interp.models.sites import edge_matrices
from tests.interop.openai.viz_data import masked_logits, summed_loss
from tests.interop.small_circuit import ANSWERS, CONFIG, make_circuit

# Compiles the model in five shapes.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A circuit, and the file of it."""
  # Of models without positions there are none in the released format.
  config = dataclasses.replace(
    CONFIG, position='concat', d_position=3, final_logits_bias=True
  )
  small = make_circuit(config, keep=0.3)
  path = tmp_path_factory.mktemp('viz') / 'viz_data.pt'
  released_viewer.write(
    path, small.circuit, small.params, small.task, small.windows
  )
  return small, path


def test_reading_it_again_gives_the_circuit_and_its_losses(written):
  small, path = written
  released = released_circuit.read(path)
  config = small.circuit.config
  found = released_model.reevaluate(
    released, config, small.params, small.means, ANSWERS
  )
  loss = small.circuit.metrics['test_loss']
  assert found.stored_pruned_loss == pytest.approx(loss, abs=1e-6)
  assert found.pruned_loss == pytest.approx(loss, abs=1e-5)
  assert found.full_loss == pytest.approx(found.stored_full_loss, abs=1e-5)
  assert found.pruned_activations < 1e-5
  circuit = released_model.to_circuit(
    released, config, small.params, small.means, ANSWERS, 'again'
  )
  for a, b in zip(circuit.edges, small.circuit.edges, strict=True):
    np.testing.assert_array_equal(a, b)
  assert circuit.history['task_loss'] == small.circuit.history['task_loss']


def test_losses_are_sums_but_those_of_layers(written):
  small, path = written
  task, stored = small.task, torch_file.read(path)['importances']
  tokens = task.tokens.reshape(-1, task.tokens.shape[2])
  kept = small.circuit.nodes

  def loss(nodes):
    return summed_loss(masked_logits(small, nodes, tokens)[0], task, ANSWERS)

  assert stored['interv_loss'] == pytest.approx(loss(kept), abs=1e-5)
  site = '0.mlp.post_act'
  without = {**kept, site: kept[site][1:]}
  assert stored['ch_interv_losses'][site][0] == pytest.approx(
    loss(without), abs=1e-5
  )
  none = {s: k[:0] if s.startswith('1.attn.') else k for s, k in kept.items()}
  assert stored['layer_interv_losses']['1.attn'] == pytest.approx(
    loss(none) / 2, abs=1e-5
  )


def test_everything_is_there_that_the_viewer_looks_up(written):
  small, path = written
  stored = torch_file.read(path)
  circuit, importances = small.circuit, stored['importances']
  assert set(stored) >= {'circuit_data', 'samples', 'importances', 'all_loss'}
  parts = [f'{layer}.{part}' for layer in (0, 1) for part in ('attn', 'mlp')]
  assert list(importances['layer_interv_losses']) == parts
  assert list(importances['ch_interv_losses']) == list(circuit.sites)
  assert stored['num_total_nodes'] == sum(circuit.sites.values())
  tokens, activations = importances['task_samples']
  assert tokens.shape[0] == 2 * len(small.task.tokens)
  half = len(tokens) // 2
  first = small.task.tokens[:, 0, : tokens.shape[1]]
  np.testing.assert_array_equal(tokens[:half], first)
  for site, kept in circuit.nodes.items():
    assert stored['circuit_data'][site].dtype == np.int64
    assert len(importances['ch_interv_losses'][site]) == len(kept)
    assert set(activations[site]) == set(stored['samples'][site]) == set(kept)
    for channel in kept:
      assert activations[site][channel].shape == tokens.shape
  pairs = {pair[-1]: pair for pair in importances['pair_data']}
  assert set(pairs) == {
    (m.source, m.target) for m in edge_matrices(circuit.config)
  }
  for (source, target), (values, rows, columns, _) in pairs.items():
    assert rows == circuit.nodes[source].tolist()
    assert columns == circuit.nodes[target].tolist()
    assert values.shape == (len(rows), len(columns))
  drawn = sum(int(np.count_nonzero(pair[0])) for pair in pairs.values())
  assert drawn == circuit.edge_count
  assert importances['beeg_model_config']['n_layer'] == 2
  assert importances['beeg_model_config']['d_head'] == 4


def test_samples_are_windows_at_a_share_of_the_range(written):
  small, path = written
  samples = torch_file.read(path)['samples']
  site = '1.mlp.act_in'
  channel = int(small.circuit.nodes[site][0])
  full = {s: np.arange(w) for s, w in small.circuit.sites.items()}
  _, seen = masked_logits(small, full, small.windows)
  values = np.sort(np.asarray(seen[site])[..., channel].reshape(-1))
  for share, (bottom, top) in samples[site][channel].items():
    start = int(share * (len(values) - 1))
    for entries, expected in (
      (bottom, values[start : start + 5]),
      (top, values[::-1][start : start + 5]),
    ):
      for (tokens, activations, place), value in zip(
        entries, expected, strict=True
      ):
        assert activations[place] == pytest.approx(value, abs=1e-6)
        assert tokens.tolist() in small.windows.tolist()


def test_torch_and_its_safe_loader_read_it(written):
  torch = pytest.importorskip('torch')
  viz = torch.load(written[1], map_location='cpu', weights_only=True)
  assert all(v.dtype == torch.int64 for v in viz['circuit_data'].values())
  importances = viz['importances']
  assert isinstance(importances['pair_data'][0][-1], tuple)
  assert importances['pair_data'][0][0].abs().numel() >= 0
  tokens, activations, place = viz['samples']['0.attn.q'][
    int(viz['circuit_data']['0.attn.q'][0])
  ][0.5][1][0]
  assert tokens.int().shape == activations.shape
  assert isinstance(place, int)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'gates': 'edges'}, 'gates on nodes'),
    ({'ablation': {'kind': 'resample'}}, 'an ablation by constants'),
  ],
)
def test_circuits_of_another_kind_are_refused(
  written, tmp_path, change, message
):
  small, _ = written
  circuit = dataclasses.replace(small.circuit, **change)
  with pytest.raises(ValueError, match=message):
    released_viewer.write(
      tmp_path / 'v.pt', circuit, small.params, small.task, small.windows
    )
  assert not list(tmp_path.iterdir())
