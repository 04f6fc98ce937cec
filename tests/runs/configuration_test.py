"""Configurations: one default for each field, all of them can be set."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from experiments import ground_truth, prune, quickstart, strength
from experiments.pretrain import expansion, laptop, tiny
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.configs import overrides, read, sections
from sparse_interp.models import GPTConfig
from sparse_interp.runs import prune as prune_run
from sparse_interp.runs import strength as strength_run
from sparse_interp.training import plan
from sparse_interp.training.optimizer import OptimizerConfig

_ROOT = pathlib.Path(__file__).parents[2]
# What a command line may hold in the place of a default.
_OTHER = {
  bool: lambda value: not value,
  int: lambda value: value + 1,
  float: lambda value: value / 2 + 0.125,
  str: lambda value: 'abc',
  tuple: lambda value: ('abc', 'def'),
  type(None): lambda value: 1,
}


def _override(file, *given):
  """The configuration as a command line sets it: --config.<field>=<value>."""
  path, variant = read.locate(str(_ROOT / 'experiments' / file))
  config = read.read(path, variant)
  pairs = [tuple(one.removeprefix('--config.').split('=', 1)) for one in given]
  overrides.apply(config, pairs)
  return config


def _differences(section):
  """{field: value} where a section is not at the default."""
  defaults = dataclasses.asdict(PruneConfig())
  return {k: v for k, v in section.to_dict().items() if v != defaults[k]}


def test_what_the_quickstart_prunes_with_is_the_default():
  for config in (
    quickstart.get_config('laptop'),
    quickstart.get_config(),
    prune.get_config(),
  ):
    assert config.prune.to_dict() == dataclasses.asdict(PruneConfig())
    assert prune_run.prune_config(config) == PruneConfig()
  # The values that the published numbers were measured with.
  assert PruneConfig() == PruneConfig(
    k_coef=1e-3,
    steps=320,
    margin=0.03,
    standard_errors=2.0,
    learning_rate=3e-2,
    batch_pairs=16,
    k_warmup_fraction=0.5,
    init_attribution=0.5,
    ablation='mean,subsets,resample,counterfactual',
    min_necessity=0.55,
    selection_pairs=128,
    holdout_pairs=192,
    calibrate='after',
    target_loss=0.15,
  )


def test_where_experiments_differ_from_the_default_is_known():
  assert _differences(quickstart.get_config('tiny').prune) == {
    'target_loss': 0.55,
    'steps': 10,
    'selection_pairs': 16,
    'holdout_pairs': 16,
    'batch_pairs': 8,
    'least_probability': 0.0,
    'ablation': 'mean,counterfactual',
    'attempts': 1,
  }
  config = strength.get_config()
  assert _differences(config.prune) == {
    'min_necessity': None,
    'calibrate': 'during',
    'bounded': False,
    'steps': 160,
    'standard_errors': 0.0,
  }
  nodes, edges = (
    dataclasses.asdict(strength_run.hyperparameters(config, gates, False))
    for gates in ('nodes', 'edges')
  )
  assert {k for k in nodes if nodes[k] != edges[k]} == {
    'gates',
    'k_coef',
    'init_attribution',
  }
  config = ground_truth.get_config()
  for_all = {
    'min_necessity': None,
    'selection_pairs': 64,
    'holdout_pairs': 128,
    'standard_errors': 0.0,
  }
  assert _differences(config.compiled) == for_all | {
    'ablation': 'task_mean',
    'target_loss': 1e-2,
    'margin': 5e-3,
    'attempts': 1,
    'steps': 400,
    'batch_pairs': 32,
    'learning_rate': 1e-2,
    'init_attribution': 0.0,
  }
  assert _differences(config.planted) == for_all | {
    'gates': 'edges',
    'ablation': 'mean',
    'steps': 160,
    'k_coef': 3e-3,
    'calibrate': 'during',
    'bounded': False,
  }


@pytest.mark.parametrize(
  ('file', 'section', 'kind', 'lacks'),
  [
    ('quickstart.py', 'prune', PruneConfig, set()),
    ('quickstart.py:tiny', 'prune', PruneConfig, set()),
    ('prune.py', 'prune', PruneConfig, set()),
    ('ground_truth.py', 'compiled', PruneConfig, {'gates'}),
    ('ground_truth.py', 'planted', PruneConfig, set()),
    *(
      (file, section, kind, lacks)
      for file in (
        'pretrain/tiny.py',
        'pretrain/laptop.py',
        'pretrain/expansion.py:2',
        'quickstart.py',
      )
      for section, kind, lacks in (
        ('model', GPTConfig, {'vocab_size', 'context_length', 'd_output'}),
        ('optimizer', OptimizerConfig, set()),
      )
    ),
  ],
)
def test_every_field_of_a_section_can_be_set(file, section, kind, lacks):
  before = _override(file)[section].to_dict()
  names = {field.name for field in dataclasses.fields(kind)} - lacks
  assert names <= set(before)
  asked = {name: _OTHER[type(before[name])](before[name]) for name in names}
  after = _override(
    file, *(f'--config.{section}.{name}={asked[name]}' for name in names)
  )
  assert {k: after[section][k] for k in names} == asked


@pytest.mark.parametrize(
  ('file', 'field', 'value'),
  [
    ('quickstart.py', 'prune.min_necessity', 0.5),
    ('quickstart.py', 'prune.min_necessity', 1),
    ('ground_truth.py', 'compiled.min_necessity', 0.5),
    ('quickstart.py', 'circuits_at_most', 3),
    ('prune.py', 'circuits_at_most', 3),
    ('prune.py', 'model_workdir', 'runs/x'),
    ('quickstart.py', 'model.activation_density', 0.5),
    ('quickstart.py', 'model.n_head', 3),
    ('quickstart.py', 'model.bigram_table', False),
    ('quickstart.py', 'data.max_bytes', 1000),
    ('pretrain/tiny.py', 'data.max_bytes', 1000),
    ('pretrain/tiny.py', 'sparsity.block', 16),
    ('pretrain/expansion.py', 'sparsity.regrow_every', 10),
    ('import_model.py', 'length', 64),
  ],
)
def test_a_field_that_may_be_none_takes_a_value_and_none(file, field, value):
  section, _, name = field.rpartition('.')
  for asked in (value, None):
    config = _override(file, f'--config.{field}={asked}')
    found = (config[section] if section else config)[name]
    assert found == asked
    assert type(found) in (type(asked), float)


def test_a_value_of_another_type_is_refused_where_it_is_read():
  for override in ('min_necessity=much', 'steps=1.5', 'eliminate=perhaps'):
    with pytest.raises(ValueError):
      _override('prune.py', f'--config.prune.{override}')


def test_names_of_models_fields_that_data_decides_are_refused():
  for name in ('vocab_size', 'context_length', 'd_output'):
    config = tiny.get_config()
    config.model[name] = 7
    with pytest.raises(ValueError, match=rf'model\.{name} must not be set'):
      plan.make_plan(config)


@pytest.mark.parametrize('make', [tiny.get_config, laptop.get_config])
def test_a_small_vocabulary_has_a_table_of_bigrams(make):
  config = make()
  assert plan.model_config(config).bigram_table
  config.data.vocab_size = 8193
  assert not plan.model_config(config).bigram_table
  config.model.bigram_table = True
  assert plan.model_config(config).bigram_table
  config.data.vocab_size, config.model.bigram_table = 2048, False
  assert not plan.model_config(config).bigram_table


def test_expansions_keep_the_published_table():
  assert plan.model_config(expansion.get_config('4')).bigram_table


def test_configurations_are_read_without_jax():
  script = (
    'import sys\n'
    'from experiments import ground_truth, import_model, prune, quickstart\n'
    'from experiments import strength\n'
    'for one in (ground_truth, import_model, prune, quickstart, strength):\n'
    '  one.get_config()\n'
    'assert not {"jax", "flax"} & set(sys.modules), "slow"\n'
  )
  subprocess.run([sys.executable, '-c', script], cwd=_ROOT, check=True)


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    ('stepz', 3, 'must be a field of PruneConfig'),
    ('steps', 1.5, 'must be a whole number'),
    ('steps', True, 'must be a whole number'),
    ('k_coef', 'x', 'must be a number'),
    ('min_necessity', 'x', 'must be a number or None'),
    ('eliminate', 1, 'must be True or False'),
    ('margin', 0.5, 'must be below the target'),
    ('gates', None, 'must be str'),
  ],
)
def test_wrong_values_are_named_with_their_section(field, value, words):
  with pytest.raises(ValueError, match=rf'planted\.{field} {words}.*got'):
    sections.read(PruneConfig, {field: value}, 'planted')


def test_a_section_refuses_values_for_fields_that_it_lacks():
  with pytest.raises(ValueError, match='gates must be a field'):
    sections.section(PruneConfig, leave_out=('gates',), gates='edges')
