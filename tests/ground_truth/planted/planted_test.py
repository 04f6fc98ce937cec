import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits.gating import calibration, task_loss
from sparse_interp.ground_truth.planted.planted import draw, plant
from sparse_interp.ground_truth.planted.planted_programs import (
  BOTH,
  LOOKUP,
  PROGRAMS,
)
from sparse_interp.ground_truth.planted.widening import widen
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import edge_matrices, node_sites

LENGTH = 40


def make_config(**fields):
  return GPTConfig(
    **{
      'vocab_size': 48,
      'n_layer': 2,
      'd_model': 32,
      'd_head': 8,
      'context_length': LENGTH,
      **fields,
    }
  )


def random_params(config, seed=0):
  """Every parameter random, gains near 1; activations are of order 1."""
  shapes = jax.eval_shape(
    GPT(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
  )['params']
  rng = np.random.default_rng(seed)

  def draw_leaf(path, leaf):
    mean = 1 if path[-1].key == 'scale' else 0
    return jnp.asarray(rng.normal(mean, 0.2, leaf.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw_leaf, shapes)


def old_tokens(config, count=16, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, config.vocab_size, (count, LENGTH), dtype=np.int32)


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, tokens):
  return GPT(config).apply({'params': params}, tokens)


@functools.partial(jax.jit, static_argnums=0)
def apply_edited(config, params, tokens, gates):
  """Last logits with all nodes outside the gates at 0."""
  edits = {site: lambda x, g=gate: x * g for site, gate in gates.items()}
  logits, _ = GPT(config).apply({'params': params}, tokens, edits=edits)
  return logits[:, -1]


def answer_differences(planted, task, params=None, gates=None):
  """Logit of a's answer minus that of b's, float32 (pairs, 2)."""
  tokens = task.tokens.reshape(-1, task.tokens.shape[2])
  params = planted.params if params is None else params
  logits = apply_edited(planted.config, params, tokens, gates or {})
  logits = logits.reshape(len(task.last), 2, -1)
  return logits[..., planted.tokens['P']] - logits[..., planted.tokens['Q']]


def calibrated_loss(differences):
  scale, shift = calibration.fit(np.asarray(differences))
  return float(jnp.mean(task_loss.pair_losses(differences, scale, shift)))


@functools.cache
def planted_in(program, **fields):
  config = make_config(**fields)
  return plant(config, random_params(config), PROGRAMS[program])


CONFIGS = [
  {'sink': True},
  {'norm': 'none', 'activation': 'relu', 'bigram_table': False},
  {'activation_density': None, 'final_logits_bias': True},
  {'activation_density': 0.3, 'n_head': 3, 'd_mlp': 50},
]


@pytest.mark.parametrize(
  'fields',
  [pytest.param(one, marks=pytest.mark.slow) for one in CONFIGS],
)
def test_old_tokens_have_the_old_logits(fields):
  config = make_config(**fields)
  params = random_params(config)
  tokens = old_tokens(config)
  logits, _ = apply(config, params, tokens)
  planted = plant(config, params, BOTH)
  new_logits, activations = apply(planted.config, planted.params, tokens)
  old, new = np.split(new_logits, [config.vocab_size], axis=-1)
  assert np.abs(logits).max() > 1
  np.testing.assert_allclose(old, logits, atol=1e-5)
  assert not np.any(new)
  for site, nodes in planted.nodes.items():
    assert not np.any(activations[site][..., nodes])


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields',
  [*CONFIGS, {'activation_sites': ('mlp_neuron', 'attn_q'), 'n_layer': 3}],
)
def test_widening_keeps_as_many_activations(fields):
  config = make_config(**fields)
  wide, _ = widen(config, random_params(config), 3, 5, 2, 7)
  assert wide.d_model >= config.d_model + 5
  assert wide.n_heads >= config.n_heads + 2
  assert wide.mlp_width >= config.mlp_width + 7
  for site, width, wider in (
    ('attn_in', config.d_model, wide.d_model),
    ('attn_q', config.d_attn, wide.d_attn),
    ('mlp_neuron', config.mlp_width, wide.mlp_width),
  ):
    before = config.kept_activations(site, width)
    assert wide.kept_activations(site, wider) == before


@pytest.mark.parametrize('program', PROGRAMS)
@pytest.mark.parametrize(
  'fields',
  [
    {},
    pytest.param(
      {'norm': 'none', 'activation': 'relu', 'sink': True},
      marks=pytest.mark.slow,
    ),
  ],
)
def test_planted_program_is_right(program, fields):
  planted = planted_in(program, **fields)
  task = draw(planted, 64, LENGTH, 0, old_tokens(make_config()))
  differences = answer_differences(planted, task)
  assert np.all(differences[:, 0] > 0)
  assert np.all(differences[:, 1] < 0)
  assert np.mean(task_loss.pair_losses(differences)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize('program', PROGRAMS)
def test_every_planted_edge_is_necessary(program):
  planted = planted_in(program)
  task = draw(planted, 64, LENGTH, 1, old_tokens(make_config()))
  matrices = {m.name: m for m in edge_matrices(planted.config)}
  for name, edges in planted.edges.items():
    block = matrices[name].block(planted.params)
    for row, column in edges.T:
      assert block[row, column] != 0
      params = matrices[name].replace_block(
        planted.params, block.at[row, column].set(0)
      )
      loss = calibrated_loss(answer_differences(planted, task, params))
      assert loss > 0.3, (name, row, column)


@pytest.mark.slow
@pytest.mark.parametrize('program', PROGRAMS)
def test_planted_nodes_suffice_and_nothing_else_does(program):
  planted = planted_in(program)
  task = draw(planted, 64, LENGTH, 2, old_tokens(make_config()))
  gates = {s: np.zeros(w) for s, w in node_sites(planted.config).items()}
  for site, nodes in planted.nodes.items():
    gates[site][nodes] = 1
  alone = answer_differences(planted, task, gates=gates)
  assert np.mean(task_loss.pair_losses(alone)) < 0.02
  others = {site: 1 - gate for site, gate in gates.items()}
  ablated = answer_differences(planted, task, gates=others)
  assert calibrated_loss(ablated) > 0.6


def test_planted_weights_are_all_edges_of_their_channels():
  planted = planted_in('chain')
  for matrix in edge_matrices(planted.config):
    block = np.array(matrix.block(planted.params))
    nodes = [planted.nodes.get(matrix.source), planted.nodes.get(matrix.target)]
    true = np.zeros(block.shape, bool)
    if matrix.name in planted.edges:
      true[tuple(planted.edges[matrix.name])] = True
    planted_rows = np.zeros(block.shape, bool)
    if nodes[0] is not None:
      planted_rows[nodes[0]] = True
    if nodes[1] is not None:
      planted_rows[:, nodes[1]] = True
    np.testing.assert_array_equal((block != 0) & planted_rows, true)


@pytest.mark.slow
def test_planting_twice_keeps_the_first_program():
  first = planted_in('lookup')
  second = plant(first.config, first.params, BOTH)
  task = draw(first, 16, LENGTH, 0, old_tokens(make_config()))
  tokens = task.tokens.reshape(-1, LENGTH)
  before, _ = apply(first.config, first.params, tokens)
  after, _ = apply(second.config, second.params, tokens)
  answers = [first.tokens['P'], first.tokens['Q']]
  np.testing.assert_allclose(
    after[:, -1, answers], before[:, -1, answers], atol=1e-4
  )


def test_pairs_differ_in_one_token_and_seeds_in_all():
  planted = planted_in('both')
  filler = old_tokens(make_config())
  task = draw(planted, 8, 30, 0, filler)
  assert task.tokens.shape == (8, 2, 30)
  assert task.tokens.dtype == task.answers.dtype == np.int32
  differing = task.tokens[:, 0] != task.tokens[:, 1]
  np.testing.assert_array_equal(differing.sum(axis=1), 1)
  assert task.conditions == ['X/Y', 'U/V'] * 4
  assert np.all(task.tokens[:, :, -1] == planted.tokens['Z'])
  again = draw(planted, 8, 30, 0, filler)
  other = draw(planted, 8, 30, 1, filler)
  np.testing.assert_array_equal(task.tokens, again.tokens)
  assert np.all(np.any(task.tokens != other.tokens, axis=2))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'norm': 'layer'}, 'model.norm'),
    ({'position': 'added'}, 'model.position'),
    ({'tied_unembed': True}, 'model.tied_unembed'),
    ({'n_layer': 1}, 'model.n_layer'),
    ({'causal': False}, 'model.causal'),
    ({'residual_activation': 'relu'}, 'model.residual_activation'),
    ({'parallel_residual': True}, 'model.parallel_residual'),
    ({'use_bias': False}, 'model.use_bias'),
  ],
)
def test_models_that_cannot_hold_a_program_are_refused(fields, message):
  config = make_config(**fields)
  with pytest.raises(ValueError, match=message):
    plant(config, random_params(config), BOTH)


def test_a_program_without_threshold_needs_no_bias():
  config = make_config(use_bias=False)
  planted = plant(config, random_params(config), LOOKUP)
  task = draw(planted, 16, LENGTH, 0, old_tokens(config))
  differences = answer_differences(planted, task)
  assert np.mean(task_loss.pair_losses(differences)) < 0.02


@pytest.mark.parametrize('length', [10, LENGTH + 1])
def test_lengths_that_hold_no_prompt_are_refused(length):
  with pytest.raises(ValueError, match='length must be'):
    draw(planted_in('both'), 1, length, 0, old_tokens(make_config()))


def test_filler_in_new_tokens_is_refused():
  planted = planted_in('both')
  filler = np.full((1, LENGTH), planted.tokens['X'])
  with pytest.raises(ValueError, match='filler'):
    draw(planted, 1, LENGTH, 0, filler)
