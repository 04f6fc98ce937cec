"""Fields set on the command line: what a text stands for, or one line."""

import pytest
from ml_collections import config_dict

from sparse_interp import configs, main
from sparse_interp.configs import check, fields, overrides


def applied(*given):
  config = configs.load('quickstart', 'tiny').lock()
  known = check.needs(config, main.known_dataclasses())[1]
  overrides.apply(config, given, lambda: known)
  return config


def line_of(path, text):
  with pytest.raises(ValueError) as info:
    applied((path, text))
  assert '\n' not in str(info.value)
  return str(info.value)


@pytest.mark.parametrize(
  ('path', 'text', 'value'),
  [
    ('seed', '7', 7),
    ('seed', '1_000', 1000),
    ('seed', '-3', -3),
    ('model.sink', 'False', False),
    ('model.sink', '0', False),
    ('optimizer.learning_rate', '1', 1.0),
    ('optimizer.learning_rate', '1e-3', 1e-3),
    ('tasks', 'a, b', 'a, b'),
    ('tasks', 'None', 'None'),
    ('data.max_bytes', 'None', None),
    ('prune.min_necessity', 'None', None),
    ('prune.min_necessity', '1', 1.0),
    ('data.corpora', '(("a", 1),)', (('a', 1),)),
    ('data.corpora', '[["a", 1]]', (['a', 1],)),
    ('model.activation_sites', 'attn_in, mlp_in', ('attn_in', 'mlp_in')),
    ('model.activation_sites', 'attn_in', ('attn_in',)),
  ],
)
def test_a_text_becomes_a_value(path, text, value):
  found = dict(fields.flat(applied((path, text))))[path]
  assert found == value
  assert type(found) is type(value)


@pytest.mark.parametrize(
  ('path', 'text', 'parts'),
  [
    ('train.tokenz', '1', ['did you mean --config.train.tokens=1?']),
    ('batch_size', '1', ['did you mean --config.data.batch_size=1?']),
    ('modle.d_model', '64', ['did you mean --config.model.d_model=64?']),
    ('qwerty', '1', ['the configuration has', 'seed']),
    ('data.qwerty', '1', ['data has', 'batch_size']),
    ('nothing.x', '1', ['there is no nothing']),
    ('data', '3', ['section', '--config.data.batch_size=8']),
    ('', '3', ['must name a field']),
    ('seed.x', '3', ['must name a field']),
    ('seed', 'abc', ['seed must be a whole number', "'abc'"]),
    ('seed', '', ['seed must be a whole number']),
    ('seed', '9' * 9 + '.5', ['a whole number']),
    ('model.sink', 'perhaps', ['True or False']),
    ('data.max_bytes', 'all', ['a whole number or None']),
    ('optimizer.eps', 'inf', ['a finite number']),
    ('optimizer.eps', '1' + '0' * 400, ['a finite number']),
    ('data.corpora', 'idioms', ["values like ('idioms', 1.0)"]),
    ('data.corpora', '(' * 9999, ['values like']),
  ],
)
def test_a_wrong_field_or_value_is_named(path, text, parts):
  line = line_of(path, text)
  assert all(part in line for part in parts), line


def test_a_field_that_the_run_knows_may_be_set_though_it_was_left_out():
  config = configs.load('quickstart', 'tiny')
  del config.prune.calibrate
  config.lock()
  known = check.needs(config, main.known_dataclasses())[1]
  overrides.apply(config, [('prune.calibrate', 'after')], lambda: known)
  assert config.prune.calibrate == 'after'


def test_references_keep_what_they_are():
  config = config_dict.ConfigDict({'a': config_dict.placeholder(int)})
  overrides.apply(config, [('a', '3')])
  overrides.apply(config, [('a', 'None')])
  overrides.apply(config, [('a', '4')])
  assert config.a == 4
