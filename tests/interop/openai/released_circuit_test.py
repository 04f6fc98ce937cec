"""viz_data.pt: read, re-evaluated, converted; what is damaged is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits.extracted import extract
from sparse_interp.interop.openai import released_circuit, released_model
from sparse_interp.interop.torch_file import torch_file
from tests.interop.openai.viz_data import make_viz_data, with_entry, without
from tests.interop.small_circuit import ANSWERS


@pytest.fixture(scope='module')
def content(small):
  return make_viz_data(small, ANSWERS)


@pytest.fixture
def released(content, tmp_path):
  torch_file.write(tmp_path / 'viz_data.pt', content[0])
  return released_circuit.read(tmp_path / 'viz_data.pt')


def test_nodes_and_halved_losses_are_read_in_ascending_order(
  small, content, released
):
  stored, sums = content
  losses = stored['importances']['ch_interv_losses']
  for site, kept in small.circuit.nodes.items():
    np.testing.assert_array_equal(released.nodes[site], kept)
    # Stored in descending order, and as sums over two prompts.
    np.testing.assert_allclose(
      released.losses.without_node[site], np.array(losses[site])[::-1] / 2
    )
  assert released.losses.full == pytest.approx(sums['loss'] / 2)
  assert released.losses.pruned == pytest.approx(sums['interv_loss'] / 2)
  assert released.losses.without_layer == {'0.attn': 0.5, '0.mlp': 0.25}
  assert released.losses.search[0] == (0, 0.75)
  assert released.prune_config == {'k_coef': 1e-4}
  assert released.deltas['0.attn.act_in', '0.attn.q'].min() == 1
  tokens, activations, position = released.samples['0.attn.q'][
    int(small.circuit.nodes['0.attn.q'][0])
  ][0.5][0][0]
  assert (len(tokens), len(activations), position) == (9, 9, 3)


def test_stored_losses_and_activations_are_found_again(small, released):
  found = released_model.reevaluate(
    released, small.circuit.config, small.params, small.means, ANSWERS
  )
  assert found.full_loss == pytest.approx(found.stored_full_loss, abs=1e-5)
  assert found.pruned_loss == pytest.approx(found.stored_pruned_loss, abs=1e-5)
  assert abs(found.full_loss - found.pruned_loss) > 0.01
  assert found.pruned_activations < 1e-5
  # Those of the circuit were stored, not those of the whole model.
  assert found.full_activations > 0.01
  text = str(found)
  assert f'stored {found.stored_pruned_loss:.6f}' in text
  assert 'half of what the file holds' in text


@pytest.mark.slow
def test_an_answer_against_all_others_is_over_the_whole_vocabulary(
  small, tmp_path
):
  answers = (ANSWERS[0], None)
  content, _ = make_viz_data(small, answers)
  torch_file.write(tmp_path / 'viz_data.pt', content)
  found = released_model.reevaluate(
    released_circuit.read(tmp_path / 'viz_data.pt'),
    small.circuit.config,
    small.params,
    small.means,
    answers,
  )
  assert found.full_loss == pytest.approx(found.stored_full_loss, abs=1e-5)
  assert found.pruned_loss == pytest.approx(found.stored_pruned_loss, abs=1e-5)


def test_other_weights_means_and_answers_show(small, released):
  config = small.circuit.config
  args = {'params': small.params, 'means': small.means, 'answers': ANSWERS}
  for change in (
    {'params': jax.tree.map(lambda x: 1.1 * x, small.params)},
    {'means': {site: 0 * mean for site, mean in small.means.items()}},
    {'answers': ANSWERS[::-1]},
  ):
    found = released_model.reevaluate(released, config, **(args | change))
    assert abs(found.pruned_loss - found.stored_pruned_loss) > 1e-3, change


@pytest.mark.slow
def test_it_becomes_a_circuit_with_the_weights_of_the_model(
  small, released, tmp_path
):
  circuit = released_model.to_circuit(
    released, small.circuit.config, small.params, small.means, ANSWERS, 'quotes'
  )
  circuit_lib.save(circuit, tmp_path / 'quotes')
  loaded = circuit_lib.load(tmp_path / 'quotes')
  for site, kept in small.circuit.nodes.items():
    np.testing.assert_array_equal(loaded.nodes[site], kept)
    np.testing.assert_array_equal(
      loaded.activations[site], small.circuit.activations[site]
    )
  for found, expected in zip(loaded.edges, small.circuit.edges, strict=True):
    np.testing.assert_array_equal(found, expected)
  losses = released.losses
  assert loaded.metrics['test_loss'] == pytest.approx(losses.pruned, abs=1e-5)
  assert loaded.metrics['stored_test_loss'] == losses.pruned
  assert loaded.history == {
    'step': [0, 1],
    'task_loss': [0.75, pytest.approx(losses.pruned)],
  }
  assert [e['side'] for e in loaded.examples] == ['a', 'b'] * 5
  assert loaded.examples[0]['answer'] == str(ANSWERS[0])
  # A circuit like any other: it can be cut out of this model, and no other.
  extract.extract_circuit(loaded, small.params)


def test_means_are_read_from_their_file(small, tmp_path):
  stored = {s: np.asarray(m)[None, None] for s, m in small.means.items()}
  torch_file.write(tmp_path / 'mean_baseline_pretrain.pt', stored)
  means = released_circuit.read_means(tmp_path / 'mean_baseline_pretrain.pt')
  for site, mean in small.means.items():
    np.testing.assert_array_equal(means[site], mean)
  for value in ([1.0], np.ones((2, 3), 'f4'), np.array([np.nan], 'f4')):
    torch_file.write(tmp_path / 'bad.pt', {'0.attn.q': value})
    with pytest.raises(ValueError, match=r'bad\.pt must hold'):
      released_circuit.read_means(tmp_path / 'bad.pt')
  torch_file.write(tmp_path / 'bad.pt', stored | {1: np.ones(2, 'f4')})
  with pytest.raises(ValueError, match='must name sites by text, not 1'):
    released_circuit.read_means(tmp_path / 'bad.pt')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda c: [], 'hold a mapping as circuit_data'),
    (lambda c: without(c, 'circuit_data'), 'must have the documented'),
    (lambda c: without(c, 'importances', 'loss'), "KeyError: 'loss'"),
    (
      lambda c: with_entry(c, float('nan'), 'importances', 'interv_loss'),
      'hold finite numbers in interv_loss',
    ),
    (
      lambda c: with_entry(c, np.array([1.5]), 'circuit_data', '0.attn.q'),
      'circuit_data of 0.attn.q as a vector of whole numbers',
    ),
    (
      lambda c: with_entry(c, np.array([1, 1]), 'circuit_data', '0.attn.q'),
      'name each node of 0.attn.q once',
    ),
    (
      lambda c: with_entry(c, np.array([-1]), 'circuit_data', '0.attn.q'),
      'name each node of 0.attn.q once, by a channel',
    ),
    (
      lambda c: with_entry(
        c, [0.1], 'importances', 'ch_interv_losses', '0.attn.q'
      ),
      'hold a loss for each node of 0.attn.q',
    ),
    (
      lambda c: with_entry(c, 3, 'importances', 'task_samples'),
      'must have the documented structure',
    ),
    (
      lambda c: with_entry(
        c, (np.ones((3, 4), int), {}), 'importances', 'task_samples'
      ),
      'two halves of task_samples, not 3 prompts',
    ),
    (
      lambda c: with_entry(
        c, (np.zeros((2, 4), int), {}), 'importances', 'task_samples'
      ),
      'task_samples that are not all padding',
    ),
    (
      lambda c: with_entry(
        c,
        (np.ones((2, 4), int), {'0.attn.q': {1: np.ones((2, 3), 'f4')}}),
        'importances',
        'task_samples',
      ),
      'hold activations of 0.attn.q:1 on 2 prompts of 4 tokens',
    ),
    (  # one channel under two keys, of which one would have got lost
      lambda c: with_entry(c, {1: {}, '1': {}}, 'samples', '0.attn.q'),
      "samples of 0.attn.q by int, not by '1'",
    ),
    (
      lambda c: with_entry(c, {1: {}, 1.5: {}}, 'samples', '0.attn.q'),
      'samples of 0.attn.q by int, not by 1.5',
    ),
  ],
)
def test_a_file_of_another_form_is_refused_in_one_line(
  content, tmp_path, change, message
):
  torch_file.write(tmp_path / 'viz_data.pt', change(content[0]))
  with pytest.raises(ValueError, match=message) as error:
    released_circuit.read(tmp_path / 'viz_data.pt')
  assert '\n' not in str(error.value)


_JUNK = (
  *(None, True, -1, 2**40, 1e308, float('inf'), 'x', [], {}, (), [[]]),
  *({'x': 1}, {0: []}, [1, 'x'], np.zeros(0, 'f4'), np.zeros((2, 2), 'f4')),
  *(np.array(3), np.array([True]), np.full((1, 3), np.nan, 'f4')),
)


def _mutate(rng, value):
  """The value with one random part replaced by something else."""
  inner = isinstance(value, dict | list | tuple) and len(value) > 0
  if not inner or rng.random() < 0.15:
    return _JUNK[rng.integers(len(_JUNK))]
  if isinstance(value, dict):
    key = list(value)[rng.integers(len(value))]
    if rng.random() < 0.1:
      return {k: v for k, v in value.items() if k != key}
    return value | {key: _mutate(rng, value[key])}
  parts = list(value)
  place = rng.integers(len(parts))
  parts[place] = _mutate(rng, parts[place])
  return type(value)(parts)


@pytest.mark.slow
def test_files_with_a_random_part_replaced_are_read_or_refused(
  content, tmp_path
):
  rng = np.random.default_rng(0)
  refusals = []
  for _ in range(30):
    torch_file.write(tmp_path / 'viz_data.pt', _mutate(rng, content[0]))
    try:
      released_circuit.read(tmp_path / 'viz_data.pt')
    except ValueError as error:
      refusals.append(str(error))
  assert len(refusals) > 9
  for refusal in refusals:
    assert '\n' not in refusal
    assert 'viz_data.pt must' in refusal


def test_a_truncated_file_is_refused(content, tmp_path):
  path = tmp_path / 'viz_data.pt'
  torch_file.write(path, content[0])
  path.write_bytes(path.read_bytes()[:-300])
  with pytest.raises(ValueError, match=r'viz_data\.pt must'):
    released_circuit.read(path)


def test_a_circuit_of_another_model_is_refused(small, released):
  config = small.circuit.config
  for change, message in (
    ({'n_layer': 3}, r'circuit_data of 2\.\S+ must be there'),
    ({'n_layer': 1}, r'circuit_data of 1\.\S+ must be absent'),
    ({'d_mlp': 8}, r'channels of 0.mlp.post_act must be below 8'),
    ({'vocab_size': 5}, 'tokens must be below 5'),
  ):
    other = dataclasses.replace(config, **change)
    with pytest.raises(ValueError, match=message):
      released_model.reevaluate(
        released, other, small.params, small.means, (0, 1)
      )
  with pytest.raises(ValueError, match='answers must be tokens below 24'):
    released_model.reevaluate(
      released, config, small.params, small.means, (0, 24)
    )
  means = {s: m for s, m in small.means.items() if s != '0.attn.k'}
  with pytest.raises(ValueError, match=r'means of 0\.attn\.k must be'):
    released_model.reevaluate(released, config, small.params, means, (0, 1))


def test_what_torch_saves_is_read(content, tmp_path):
  torch = pytest.importorskip('torch')

  def to_torch(value):
    if isinstance(value, np.ndarray):
      return torch.from_numpy(value.copy())
    if isinstance(value, dict):
      return {key: to_torch(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
      return type(value)(map(to_torch, value))
    return value

  stored = to_torch(content[0])
  stored['importances']['loss'] = torch.tensor(3.0, dtype=torch.bfloat16)
  torch.save(stored, tmp_path / 'viz_data.pt')
  read = released_circuit.read(tmp_path / 'viz_data.pt')
  assert read.losses.full == 1.5
  np.testing.assert_array_equal(
    read.tokens, content[0]['importances']['task_samples'][0]
  )
