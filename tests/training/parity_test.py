"""Forty updates of the published training code, matched number by number.

`tests/data/training_parity` was recorded from it; its README states the
tolerances used here, and why strictness ends at update 10: one flipped near-tie
of a top-k is rounding, and changes all that follows.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import GPT, GPTConfig
from sparse_interp.sparsity import rules, schedules, statistics
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import state as state_lib

FIXTURE = (
  pathlib.Path(__file__).parents[1]
  / 'data/training_parity/linear_anneal_min_alive_4'
)
STRICT = 10  # updates


def our_name(name):
  """E.g. 'transformer.h.0.ln_1.weight' -> 'h_0/ln_1/scale'."""
  name = name.removeprefix('transformer.').replace('h.', 'h_', 1)
  if not name.endswith('weight'):
    return name.replace('.', '/')
  *layer, module, _ = name.split('.')
  leaf = 'kernel'
  if module.startswith('ln_'):
    leaf = 'scale'
  if module in ('wte', 'wpe'):
    leaf = 'embedding'
  return '/'.join([*layer, module, leaf])


def read(file):
  """{our name: array}; published matrices are (out, in), ours (in, out)."""
  tensors = {}
  for name, array in np.load(FIXTURE / file).items():
    if name != 'final_logits_bias':
      ours = our_name(name)
      tensors[ours] = array.T if ours.endswith('kernel') else array
  return tensors


def nested(tensors):
  tree = {}
  for name, array in tensors.items():
    *path, leaf = name.split('/')
    node = tree
    for key in path:
      node = node.setdefault(key, {})
    node[leaf] = jnp.array(array)
  return tree


@pytest.fixture(scope='module')
def recorded():
  trace = dict(np.load(FIXTURE / 'trace.npz'))
  trace['names'] = [our_name(name) for name in trace['param_names']]
  return trace


@pytest.fixture(scope='module')
def schedule():
  settings = json.loads((FIXTURE / 'hyperparameters.json').read_text())
  training = settings['training']
  ef = training['expansion_factor']
  return schedules.DensitySchedule(
    total_steps=settings['derived']['total_steps'],
    density=training['pfrac'] / ef**2,
    expansion_factor=float(ef),
    start_fraction=training['pfrac_anneal_start_frac'],
    stop_fraction=training['pfrac_anneal_stop_frac'],
  )


@pytest.fixture(scope='module')
def rate(schedule):
  return schedules.learning_rate(schedule, 0.0128, 0.1)


@pytest.fixture(scope='module')
def targets(schedule):
  params = nested(read('state_initial.npz'))
  return rules.make_targets(params, schedule, 4, biases='dense')


@pytest.fixture(scope='module')
def ours(recorded, rate, targets):
  """Our 41 updates: losses, gradient RMS, and states after each update."""
  model = GPT(
    GPTConfig(
      vocab_size=96,
      n_layer=2,
      d_model=64,
      d_head=8,
      context_length=32,
      position='added',
    )
  )
  optimizer = optimizer_lib.make_optimizer(
    optimizer_lib.OptimizerConfig(), rate, targets
  )
  params = nested(read('state_initial.npz'))
  state = state_lib.TrainState(params, optimizer.init(params))
  step = jax.jit(state_lib.make_train_step(model, optimizer))
  states, numbers = [state], []
  with jax.default_matmul_precision('highest'):
    for tokens in recorded['tokens']:
      state, number = step(state, tokens)
      states.append(state)
      numbers.append({k: float(v) for k, v in number.items()})
  return states, numbers


def test_rates_and_densities_are_the_published_ones(recorded, schedule, rate):
  np.testing.assert_allclose(
    schedules.pfrac(schedule), recorded['pfrac'], rtol=1e-9
  )
  np.testing.assert_allclose(rate, recorded['lr'], rtol=1e-9, atol=0)


def test_counts_are_the_published_ones_at_every_update(recorded, targets):
  for column, name in enumerate(recorded['names']):
    k = recorded['k'][:, column]
    if name in targets:
      np.testing.assert_array_equal(targets[name].counts, k, err_msg=name)
    else:
      assert name.endswith('bias') or (k == -1).all(), name


def test_raw_gradients_match(ours):
  states, numbers = ours
  # The first moment after one update is 0.1 * gradient / (RMS + 1e-5).
  scale = (numbers[0]['gradient_rms'] + 1e-5) / 0.1
  moments = statistics.named_tensors(states[1].opt_state[1].mu)
  for name, gradient in read('raw_grads_first_batch.npz').items():
    np.testing.assert_allclose(
      moments[name] * scale, gradient, atol=1e-6, rtol=0, err_msg=name
    )


def test_losses_and_gradient_scales_match(recorded, ours):
  numbers = ours[1][:STRICT]
  np.testing.assert_allclose(
    [n['train_loss'] for n in numbers],
    recorded['loss'][:STRICT],
    atol=1e-5,
    rtol=0,
  )
  np.testing.assert_allclose(
    [n['gradient_rms'] for n in numbers],
    recorded['grad_rms'][:STRICT],
    rtol=1e-5,
  )


@pytest.mark.parametrize('updates', [1, 2, 10])
def test_weights_and_masks_match(ours, updates):
  params = statistics.named_tensors(ours[0][updates].params)
  expected = read(f'state_step{updates:03d}.npz')
  assert params.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(params[name] != 0, array != 0, err_msg=name)
    np.testing.assert_allclose(
      params[name], array, atol=1e-5, rtol=0, err_msg=name
    )


def test_nonzeros_match_at_every_update(recorded, ours):
  for update, state in enumerate(ours[0][1:]):
    tensors = statistics.named_tensors(state.params)
    found = [np.count_nonzero(tensors[name]) for name in recorded['names']]
    np.testing.assert_array_equal(found, recorded['l0'][update])


def test_later_losses_stay_near(recorded, ours):
  losses = np.array([n['train_loss'] for n in ours[1]])
  assert np.abs(losses - recorded['loss']).max() < 0.1
