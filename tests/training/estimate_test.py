"""What a run will take in memory is said before it begins, about right."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments.pretrain import expansion, laptop, tiny
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.training import estimate, plan
from sparse_interp.training import state as state_lib

_ROOT = pathlib.Path(__file__).parents[2]
_ALONE = estimate.Share(1, 1)

# Makes a state, and then a step after it that is free of compiling; says how
# much more memory the process had at its largest than before the state.
_STEP = """
import json, pathlib, sys
import jax, jax.numpy as jnp
from experiments.pretrain import laptop
from sparse_interp.models import GPT
from sparse_interp.training import memory, optimizer, plan
from sparse_interp.training import state as state_lib

def status(name):
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (line,) = (line for line in lines if line.startswith(name + ':'))
  return int(line.split()[1]) * 1024

config = laptop.get_config()
for section, values in json.loads(sys.argv[1]).items():
  config[section].update(values)
config.train.tokens = 2 * config.data.batch_size * config.data.length
made = plan.make_plan(config)
model = GPT(made.model, made.products)
chain = optimizer.make_optimizer(
  made.optimizer, made.learning_rate, made.targets
)
init = state_lib.make_init(model, chain)
shapes = jax.eval_shape(init, jax.random.key(0))
tokens = jnp.zeros((config.data.batch_size, config.data.length), jnp.int32)
step = jax.jit(
  state_lib.make_train_step(model, chain, tuple(made.targets)), donate_argnums=0
).lower(shapes, tokens).compile()
before = status('VmRSS')
pathlib.Path('/proc/self/clear_refs').write_text('5')
state = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
jax.block_until_ready(step(state, tokens))
print(status('VmHWM') - before)
"""


def _of(config):
  return estimate.of_training(
    plan.model_config(config),
    config.data.batch_size,
    config.train.tokens // (config.data.batch_size * config.data.length) + 1,
    config.train.eval_batches,
    _ALONE,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'change',
  [
    {'data': {'vocab_size': 8192}},  # most of it the table of bigrams
    {'model': {'d_model': 768}, 'data': {'batch_size': 4}},  # the layers
    {'data': {'batch_size': 256}},  # activations and logits
    {'data': {'vocab_size': 30_000, 'batch_size': 16}},  # logits
  ],
)
def test_a_step_takes_as_much_as_estimated(change):
  found = subprocess.run(
    [sys.executable, '-c', _STEP, json.dumps(change)],
    env=os.environ
    | {
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '',
      'PYTHONPATH': str(_ROOT),
    },
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  config = laptop.get_config()
  for section, values in change.items():
    config[section].update(values)
  # Compiling is over when the step is measured.
  parts = [part for part in _of(config) if 'compiling' not in part.what]
  expected = sum(part.size for part in parts)
  assert expected / 2 < int(found.stdout) < expected * 2


@pytest.mark.slow
@pytest.mark.parametrize(
  'config',
  [
    tiny.get_config(),
    laptop.get_config(),
    expansion.get_config('4'),
  ],
)
@pytest.mark.parametrize(
  'change',
  [
    {},
    {'bigram_table': False, 'use_bias': False, 'tied_unembed': True},
    {'position': 'added', 'n_head': 2, 'd_mlp': 100},
    {'position': 'concat', 'd_position': 6},
  ],
)
def test_parameters_are_counted_without_making_them(config, change):
  fields = plan.model_config(config).__dict__ | change
  model = GPTConfig(**fields)
  shapes = jax.eval_shape(
    lambda key: state_lib.init_params(GPT(model), key), jax.random.key(0)
  )
  true = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  counted = sum(estimate.parameter_counts(model).values())
  assert math.isclose(counted, true, rel_tol=0.01)


@pytest.mark.parametrize('use_bias', [True, False])
def test_without_norms_the_count_of_parameters_is_exact(use_bias):
  model = GPTConfig(
    *(11, 2, 6, 2),
    d_mlp=7,
    norm='none',
    use_bias=use_bias,
    position='concat',
    d_position=3,
  )
  shapes = jax.eval_shape(
    lambda key: state_lib.init_params(GPT(model), key), jax.random.key(0)
  )
  true = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert sum(estimate.parameter_counts(model).values()) == true


def test_hosts_hold_what_all_their_devices_do_and_gpus_their_own(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 4)
  monkeypatch.setattr(jax, 'device_count', lambda: 32)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 8)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  assert estimate.share(fsdp=2) == (4, 1 / 4)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert estimate.share(fsdp=2) == (1 / 2, 1 / 32)


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    ('data.vocab_size', 100_000, 'model.bigram_table=False'),
    ('data.vocab_size', 10**9, 'lower it'),
    ('data.batch_size', 10**6, 'lower it'),
    ('data.length', 10**8, 'activations'),
    ('model.d_model', 10**6, '2 layers'),
    ('model.n_layer', 10**6, 'lower it'),
    ('model.d_mlp', 10**8, '2 layers'),
    ('model.n_head', 10**7, '2 layers'),
    ('train.tokens', 10**14, 'schedules'),
    ('train.eval_batches', 10**9, 'validation text'),
  ],
)
def test_what_does_not_fit_is_refused_at_once_with_a_field_that_helps(
  field, value, words
):
  config = tiny.get_config()
  config.model.bigram_table = True
  section, name = field.split('.')
  config[section][name] = value
  if name == 'batch_size':
    config.train.tokens = 10**9
  if name == 'length':
    config.train.tokens = 10**10
  with pytest.raises(ValueError, match=words) as error:
    plan.make_plan(config, free=20_000_000_000)
  assert '\n' not in str(error.value)
  assert 'must leave the run within the 20.0 GB' in str(error.value)
  if name not in ('length', 'd_mlp', 'n_head'):
    assert str(error.value).startswith(field)


def test_the_sizes_that_ship_fit_a_small_machine():
  for config in (tiny.get_config(), laptop.get_config()):
    assert plan.make_plan(config, free=4_000_000_000)
  large = tiny.get_config()
  large.data.vocab_size = 50_257  # without a table of bigrams
  assert plan.make_plan(large, free=4_000_000_000)
  with pytest.raises(ValueError, match='within the 100 MB'):
    plan.make_plan(laptop.get_config(), free=100_000_000)


def test_states_are_counted_as_often_as_they_are_held():
  model = plan.model_config(laptop.get_config())
  sizes = [
    sum(
      part.size
      for part in estimate.of_training(model, 32, 1, 1, estimate.Share(*share))
      if part.what.startswith(what)
    )
    for share in ((1, 1), (8, 1), (1, 0.125))
    for what in ('the table', 'activations')
  ]
  state, activations = sizes[:2]
  assert sizes == [
    *(state, activations),
    *(8 * state, activations),
    *(state, activations / 8),
  ]


@pytest.mark.parametrize(
  ('change', 'field'),
  [
    ({'test_pairs': 10**7}, 'pairs.test'),
    ({'train_pairs': 10**8}, 'pairs.train'),
    ({'batch_pairs': 10**6}, 'prune.batch_pairs'),
    ({'steps': 10**9}, 'prune.steps'),
  ],
)
def test_pruning_that_does_not_fit_is_refused_by_field(change, field):
  usual = {
    'tasks': 20,
    'train_pairs': 768,
    'test_pairs': 256,
    'length': 80,
    'steps': 160,
    'batch_pairs': 16,
  }
  model = plan.model_config(laptop.get_config())
  estimate.check(estimate.of_pruning(model, **usual), 1_000_000_000)
  with pytest.raises(ValueError, match=rf'^{field} must .* free, got \d+: it'):
    estimate.check(estimate.of_pruning(model, **usual | change), 20_000_000_000)
