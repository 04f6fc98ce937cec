"""Whatever a configuration's file does wrong is one line that names it."""

import pytest

from sparse_interp.configs import read, shipped

# File, and what the line must contain.
WRONG = {
  'import': (
    'import os\nimport no_such_module\n',
    ['wrong.py, line 2', "No module named 'no_such_module'", 'install it'],
  ),
  'syntax': ('def get_config():\n  return {\n', ['wrong.py, line 2', 'closed']),
  'nothing': ('', ['define get_config()', 'wrong.py']),
  'not a function': ('get_config = 3\n', ['define get_config()']),
  'no return': (
    'def get_config():\n  x = 1\n',
    ['must return a ConfigDict', 'NoneType', 'return missing'],
  ),
  'another type': ('def get_config():\n  return [1]\n', ['got list']),
  'raises': (
    'def get_config():\n  return {}["lr"]\n',
    ['wrong.py, line 2', "KeyError: 'lr'"],
  ),
  'raises deeper': (
    'import json\n\ndef get_config():\n  return json.loads("{")\n',
    ['wrong.py, line 4', 'JSONDecodeError'],
  ),
  'exits': ('raise SystemExit(3)\n', ['wrong.py, line 1', 'SystemExit']),
  'a variant too few': (
    'def get_config(size):\n  return {}\n',
    ['one variant', 'wrong.py:<variant>'],
  ),
  'keys that are no names': (
    'def get_config():\n  return {"a.b": 1}\n',
    ['names for keys', 'a.b'],
  ),
  'null': ('a\0b', ['wrong.py', 'null bytes']),
}


def line_of(call, *arguments):
  with pytest.raises(ValueError) as info:
    call(*arguments)
  assert '\n' not in str(info.value)
  return str(info.value)


@pytest.mark.parametrize('name', WRONG)
def test_what_is_wrong_with_a_file_is_told(name, tmp_path):
  source, parts = WRONG[name]
  path = tmp_path / 'wrong.py'
  path.write_text(source)
  line = line_of(read.read, path)
  assert all(part in line for part in parts), line


def test_a_variant_too_many_is_told(tmp_path):
  path = tmp_path / 'a.py'
  path.write_text('def get_config():\n  return {}\n')
  path, variant = read.locate(f'{path}:tiny')
  assert "no variant, got 'tiny'" in line_of(read.read, path, variant)


def test_a_dict_is_a_configuration(tmp_path):
  path = tmp_path / 'a.py'
  path.write_text(
    'def get_config(run):\n  return {"run": run, "data": {"length": 3}}\n'
  )
  config = read.read(*read.locate(f'{path}:pretrain'))
  assert config.run == 'pretrain'
  assert config.data.length == 3


@pytest.mark.parametrize(
  ('asked', 'parts'),
  [
    ('quickstrat', ['did you mean --config=quickstart?']),
    ('laptop', ['did you mean --config=pretrain/laptop?']),
    ('somewhere/experiments/quickstart.py', ['--config=quickstart?']),
    ('my_file.py', ['my_file.py', 'not there', '--list']),
    ('config.yaml', ['config.yaml', '.yaml file', 'get_config']),
    ('config.json', ['config.json', '.json file']),
    ('.', ['a directory']),
  ],
)
def test_what_is_no_configuration_is_named(asked, parts, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('config.yaml', 'config.json'):
    (tmp_path / name).write_text('run: pretrain\n')
  line = line_of(read.locate, asked)
  assert all(part in line for part in parts), line


def test_names_and_paths_are_told_apart(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert read.locate('pretrain/laptop') == (
    shipped.path_of('pretrain/laptop'),
    [],
  )
  assert read.locate('quickstart:tiny') == (
    shipped.path_of('quickstart'),
    ['tiny'],
  )
  odd = tmp_path / 'a:b.py'
  odd.touch()
  assert read.locate('a:b.py')[1] == []
  assert read.locate('~/a:b.py')[0] == odd
