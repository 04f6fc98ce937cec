"""From arguments to what is asked, and mistakes in them."""

import pytest

from sparse_interp import command_line

TINY = '--config=pretrain/tiny'
AT = '--workdir=w'


def parse(*argv):
  return command_line.parse(argv, lambda config: {})


def test_names_fields_and_values_in_every_form():
  asked = parse(
    *('-config', 'quickstart:tiny', AT, '--config.seed=3'),
    *('--config.train.tokens', '9000', '--noconfig.model.sink'),
    *('--config.model.causal', '--config.tasks=a, b = c'),
  )
  assert asked.workdir == 'w'
  assert asked.source.endswith('quickstart.py')
  assert asked.config.seed == 3
  assert asked.config.train.tokens == 9000
  assert asked.config.model.sink is False
  assert asked.config.model.causal is True
  assert asked.config.tasks == 'a, b = c'
  assert asked.config.is_locked


@pytest.mark.parametrize('word', ['--help', '-h', '-help', '--helpfull'])
def test_help_is_shown_whatever_else_is_there(word):
  assert parse('--workdri=3', word).show == 'help'


def test_a_list_needs_nothing_else():
  assert parse('--list').show == 'list'


@pytest.mark.parametrize(
  ('argv', 'parts'),
  [
    ([], ['config must be given', '--config=quickstart']),
    ([TINY], ['workdir must be given', '--workdir=']),
    ([TINY, '--workdir='], ['workdir must be given']),
    ([TINY, '--workdir'], ['Missing value for flag --workdir']),
    (['--workdir', TINY], ['workdir must be given', 'next flag', TINY]),
    (['--config', AT], ['config must be given', 'next flag', AT]),
    ([TINY, '--workdri=w'], ['workdri', 'Did you mean: workdir?']),
    ([TINY, AT, '--lsit'], ['lsit', 'Did you mean: list?']),
    ([TINY, AT, 'more'], ["must be flags, got 'more'", '--name=value']),
    ([TINY, AT, '--config.seed'], ['seed must be a whole number']),
    ([TINY, AT, '--config.sed=3'], ['did you mean --config.seed=3?']),
  ],
)
def test_a_mistake_is_one_line(argv, parts):
  with pytest.raises(ValueError) as info:
    parse(*argv)
  line = str(info.value)
  assert '\n' not in line
  assert all(part in line for part in parts), line


def test_the_run_is_set_before_what_only_it_has():
  known = []

  def further(config):
    known.append(config.run)
    return {}

  with pytest.raises(ValueError):
    command_line.parse(
      [TINY, AT, '--config.model_workdir=x', '--config.run=prune'], further
    )
  assert known == ['prune']
