"""A run gets every field it needs, each of its type, or does not begin."""

import pytest
from ml_collections import config_dict

from sparse_interp import configs, main
from sparse_interp.configs import check, paths, shipped
from sparse_interp.configs.runs import RUNS


def checked(config, source='config'):
  return check.check(config, main.known_dataclasses(), source)


def line_of(config):
  with pytest.raises(ValueError) as info:
    checked(config, 'my.py')
  assert '\n' not in str(info.value)
  return str(info.value)


def tiny():
  return configs.load('quickstart', 'tiny')


@pytest.mark.parametrize('name', shipped.names())
def test_what_ships_is_complete(name):
  config = configs.load(name)
  assert checked(config).to_dict() == config.to_dict()


def test_every_run_is_known_and_its_reference_is_of_it():
  for name, run in RUNS.items():
    assert callable(main.function(name))
    assert shipped.load(run.reference, *run.variant).run in RUNS
    assert run.says
    if name != 'pretrain':
      assert shipped.load(run.reference, *run.variant).run == name


def test_a_configuration_of_another_project_is_told_by_its_fields():
  config = config_dict.ConfigDict({'batch': 3, 'lr': 0.1})
  line = line_of(config)
  assert 'run must be one of quickstart' in line
  assert 'none in my.py, which has batch, lr' in line
  config.run = 'quikstart'
  assert "did you mean 'quickstart'?" in line_of(config)
  config = config_dict.ConfigDict({'run': 3})
  assert 'got 3' in line_of(config)


@pytest.mark.parametrize(
  ('missing', 'parts'),
  [
    ('seed', ['field seed', 'add it, 0']),
    ('data.batch_size', ['field data.batch_size', 'add it, 32']),
    ('data', ['section data', 'data.batch_size = 32']),
    ('pairs', ['section pairs', '--config=quickstart']),
    ('prune', ['section prune', '--config=quickstart']),
  ],
)
def test_a_missing_field_is_named_with_its_default(missing, parts):
  config = tiny()
  section, _, name = missing.rpartition('.')
  del (config[section] if section else config)[name]
  line = line_of(config)
  assert all(part in line for part in [*parts, 'none']), line


def test_what_was_meant_by_an_unknown_field_is_said():
  config = tiny()
  del config.data.batch_size
  config.data.batchsize = 3
  assert 'is it data.batchsize that was meant?' in line_of(config)
  config = tiny()
  config.train.shuffle = True
  assert 'got train.shuffle = True; remove it' in line_of(config)
  config = tiny()
  config.prune.stepz = 3
  assert 'did you mean prune.steps?' in line_of(config)


@pytest.mark.parametrize(
  ('path', 'value', 'words'),
  [
    ('seed', 'abc', 'a whole number'),
    ('seed', 1.0, 'a whole number'),
    ('seed', True, 'a whole number'),
    ('seed', None, 'a whole number'),
    ('tasks', 3, 'text'),
    ('model.sink', 1, 'True or False'),
    ('model.norm', None, 'text'),
    ('optimizer.learning_rate', float('nan'), 'a finite number'),
    ('optimizer.learning_rate', float('inf'), 'a finite number'),
    ('optimizer.learning_rate', '1e-3', 'a finite number'),
    ('data.corpora', 'idioms', 'a tuple'),
    ('data.corpora', (('idioms', 'x'),), 'a tuple of values like'),
    ('data.corpora', ('idioms', 1.0), 'a tuple of values like'),
    ('data.max_bytes', 'x', 'a whole number or None'),
    ('prune.min_necessity', 'x', 'a finite number or None'),
    ('prune.steps', 1.5, 'a whole number'),
  ],
)
def test_a_value_of_another_type_is_refused(path, value, words):
  config = tiny()
  section, _, name = path.rpartition('.')
  with config.ignore_type():
    (config[section] if section else config)[name] = value
  line = line_of(config)
  assert line.startswith(f'{path} must be {words}'), line
  assert 'got' in line
  assert 'give e.g.' in line


def test_a_section_and_a_field_are_not_each_other():
  config = config_dict.ConfigDict(tiny().to_dict() | {'data': 3})
  assert 'data as a section' in line_of(config)
  config = config_dict.ConfigDict(tiny().to_dict() | {'seed': {'a': 3}})
  assert 'a whole number as seed, got a section with seed.a' in line_of(config)
  config = config_dict.ConfigDict(tiny().to_dict() | {'prune': 3})
  assert 'section prune, got 3' in line_of(config)


def test_what_may_be_none_or_has_a_default_may_be_left_out():
  config = tiny()
  del config.sparsity.block, config.prune.min_necessity, config.prune.clip
  config.lock()
  complete = checked(config)
  assert complete.sparsity.block is None
  assert complete.prune.min_necessity == 0.55
  assert complete.prune.clip == 1.0
  assert 'block' not in config.sparsity


def test_sections_that_overlay_others_are_not_filled():
  config = configs.load('strength')
  del config.nodes.init_attribution
  config.prune.init_attribution = 0.3
  assert 'init_attribution' not in checked(config).nodes
  config.together.mine = {'on': 'model', 'repetitions': 1, 'step': 3}
  assert 'did you mean together.mine.steps?' in line_of(config)
  del config.together.mine.step, config.together.mine.on
  assert 'field together.mine.on' in line_of(config)
  config.together = config_dict.ConfigDict()
  assert not checked(config).together


def test_a_configuration_serves_several_runs():
  config = tiny()
  config.run = 'pretrain'
  assert checked(config).run == 'pretrain'
  config.run = 'report'
  assert checked(config).run == 'report'


def test_the_home_directory_is_found_in_paths(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = tiny()
  config.data.corpora = (('files:~/a/*.py', 0.5), ('~/b~c', 0.5))
  config.tasks = 'a~b'
  config.model_workdir = '~/runs'
  config.lock()
  paths.expand(config)
  assert config.data.corpora == (
    ('files:/home/me/a/*.py', 0.5),
    ('/home/me/b~c', 0.5),
  )
  assert config.tasks == 'a~b'
  assert config.model_workdir == '/home/me/runs'
