"""The command line: from arguments to what is asked; quickly, without jax."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from absl import flags
from ml_collections import config_dict

from sparse_interp.configs import overrides, read
from sparse_interp.configs.fields import Field

_HELP = {'-h', '-help', '--help', '--helpshort', '--helpfull', '-?'}
_OVERRIDE = re.compile(r'--?(no)?config\.([^=]*)(?:=(.*))?', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Asked:
  """What a command line asks for.

  Attributes:
    config: the configuration, with the fields set that the line sets, locked.
    workdir: as it was given.
    source: file that the configuration was read from.
    show: 'help' or 'list' where only that was asked; the others are None then.
  """

  config: config_dict.ConfigDict | None = None
  workdir: str | None = None
  source: str | None = None
  show: str | None = None


def parse(
  argv: Sequence[str],
  further: Callable[[config_dict.ConfigDict], Mapping[str, Field]],
) -> Asked:
  """Reads a command line and the configuration that it names.

  Args:
    argv: arguments without the name of the program.
    further: given the configuration, fields that may be set beside those that
      it has.

  Raises:
    ValueError: something is wrong with it.
  """
  if not _HELP.isdisjoint(argv):
    return Asked(show='help')
  given, rest = _split(argv)
  values = _flags()
  try:
    positional = values(['sparse_interp', *rest])[1:]
  except flags.Error as error:
    text = ' '.join(str(error).split()).rstrip('.').replace(' ?', '?')
    raise ValueError(f'{text}; --help shows all flags.') from error
  if values.list:
    return Asked(show='list')
  if positional:
    raise ValueError(
      f'arguments must be flags, got {positional[0]!r}; '
      'write --name=value, with quotes where the value contains spaces.'
    )
  _require(values)
  path, variant = read.locate(values.config)
  config = read.read(path, variant)
  # What may be set depends on the run, which may be set itself.
  given.sort(key=lambda one: one[0] != 'run')
  overrides.apply(config, given, lambda: further(config))
  return Asked(config.lock(), values.workdir, str(path))


def _require(values: flags.FlagValues) -> None:
  """Raises ValueError unless there are a configuration and a workdir."""
  examples = {'config': 'quickstart', 'workdir': 'runs/a'}
  for name, example in examples.items():
    if (values[name].value or '').startswith('--'):
      raise ValueError(
        f'{name} must be given, got the next flag, {values[name].value!r}, in '
        f'its place; write --{name}={example}.'
      )
  for name, example in examples.items():
    if not values[name].value:
      raise ValueError(
        f'{name} must be given; add --{name}=<path>, e.g. '
        f'--{name}={example}, and see --help.'
      )


def wants_debug(argv: Sequence[str]) -> bool:
  """Whether --debug is among the arguments, whatever else is wrong there."""
  return not {'--debug', '-debug', '--debug=true'}.isdisjoint(argv)


def _flags() -> flags.FlagValues:
  """Flags of this program alone, not those that libraries define."""
  values = flags.FlagValues()
  flags.DEFINE_string('config', None, 'See --help.', flag_values=values)
  flags.DEFINE_string('workdir', None, 'See --help.', flag_values=values)
  flags.DEFINE_bool('debug', False, 'See --help.', flag_values=values)
  flags.DEFINE_bool('list', False, 'See --help.', flag_values=values)
  return values


def _split(argv: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
  """((field, text) pairs of --config.field=text, the other arguments).

  Raises:
    ValueError: a field has no value.
  """
  given, rest, words = [], [], list(argv)
  while words:
    word = words.pop(0)
    match = _OVERRIDE.fullmatch(word)
    if not match:
      rest.append(word)
      continue
    negated, path, text = match.groups()
    if text is None and negated:
      text = 'false'
    elif text is None:
      # A flag alone is true, as absl has it; and `--name value` is one, too.
      lonely = not words or words[0].startswith('--')
      text = 'true' if lonely else words.pop(0)
    given.append((path, text))
  return given, rest
