"""Compares a configuration with what its run needs, before the run sees it."""

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from sparse_interp.configs import fields, shipped
from sparse_interp.configs.fields import Field
from sparse_interp.configs.runs import RUNS, Run

Fields = dict[str, Field]


def run_name(config: config_dict.ConfigDict, source: str = 'config') -> str:
  """The run that a configuration names.

  Args:
    config: any.
    source: what it is called in errors, e.g. its file.

  Raises:
    ValueError: it names none.
  """
  name = config.get('run')
  if isinstance(name, str) and name in RUNS:
    return name
  close = isinstance(name, str) and fields.did_you_mean(name, RUNS)
  hint = f"did you mean '{close}'? Set" if close else 'set'
  has = ', '.join([str(key) for key in config][:6]) or 'nothing'
  got = repr(name) if 'run' in config else f'none in {source}, which has {has}'
  raise ValueError(
    f'run must be one of {", ".join(RUNS)}, got {got}; {hint} it in '
    'the configuration or with --config.run.'
  )


def check(
  config: config_dict.ConfigDict,
  dataclasses: Mapping[str, Fields],
  source: str = 'config',
) -> config_dict.ConfigDict:
  """Compares names and types of all fields; values are for the run to judge.

  Args:
    config: of any run.
    dataclasses: {name: fields} of those that `runs.Run` names.
    source: what the configuration is called in errors, e.g. its file.

  Returns:
    A copy with nothing left out: fields that may be None are, where nothing
    else is said, and those of dataclasses are at their defaults.

  Raises:
    ValueError: a field is missing, unknown, or of another type.
  """
  run_name(config, source)
  required, known = needs(config, dataclasses, source)
  given = dict(fields.flat(config))
  for path, field in required.items():
    if path not in given:
      what = _missing(path, field, given, config.run)
      raise ValueError(f'{source} must {what}')
  for path, value in given.items():
    if path not in known and path not in _of_all_runs():
      raise ValueError(f'{source} must {_unknown(path, value, known)}')
    wrong = path in known and fields.problem(value, known[path])
    if wrong:
      raise ValueError(
        f'{path} must be {wrong}, got {value!r} in {source}; give e.g. '
        f'{known[path].default!r}.'
      )
  return _complete(config, dataclasses)


def needs(
  config: config_dict.ConfigDict,
  dataclasses: Mapping[str, Fields],
  source: str = 'config',
) -> tuple[Fields, Fields]:
  """(fields that must be there, fields that may be there), by dotted name.

  Args:
    config: of any run.
    dataclasses: {name: fields} of those that `runs.Run` names.
    source: what the configuration is called in errors, e.g. its file.

  Raises:
    ValueError: it names no run, or lacks a section of it.
  """
  run = RUNS[run_name(config)]
  reference = _reference(run)
  known, required = dict(reference), dict(reference)
  for pattern, name in {**run.open, **run.loose}.items():
    own = {}  # fields of such a section in the reference
    for path in [path for path in required if _is_in(path, pattern)]:
      own.setdefault(path.rpartition('.')[2], required.pop(path))
      del known[path]
    for section in _sections(pattern, config, source):
      for key, field in {**own, **dataclasses[name]}.items():
        path, shown = f'{section}.{key}', own.get(key, field)
        optional = field.optional or shown.optional
        known[path] = Field(field.kind, optional, shown.default)
        if key not in dataclasses[name]:
          required[path] = field
  # What may be None is None where nothing is said.
  return {k: f for k, f in required.items() if f.default is not None}, known


def _is_in(path: str, pattern: str) -> bool:
  section = path.rpartition('.')[0]
  if pattern.endswith('.*'):
    section = f'{section.rpartition(".")[0]}.*'
  return section == pattern


def _sections(
  pattern: str, config: config_dict.ConfigDict, source: str
) -> list[str]:
  """Sections of a configuration that a pattern stands for."""
  name = pattern.removesuffix('.*')
  section = config.get(name)
  if not isinstance(section, config_dict.ConfigDict):
    got = 'none' if section is None else repr(section)
    raise ValueError(
      f'{source} must have the section {name}, got {got}; add it as in '
      f'--config={RUNS[config.run].reference}.'
    )
  return [name] if name == pattern else [f'{name}.{case}' for case in section]


def _complete(
  config: config_dict.ConfigDict, dataclasses: Mapping[str, Fields]
) -> config_dict.ConfigDict:
  run = RUNS[config.run]
  filled = {}
  for path, field in _reference(run).items():
    section, _, key = path.rpartition('.')
    if not any(_is_in(path, pattern) for pattern in run.loose):
      like = dataclasses.get(run.open.get(section), {})
      filled[path] = like.get(key, field).default
  given = dict(fields.flat(config))
  result = config.copy_and_resolve_references()
  with result.unlocked(), result.ignore_type():
    for path, value in filled.items():
      if path not in given:
        section, _, key = path.rpartition('.')
        at = result
        for name in section.split('.') if section else ():
          if name not in at:
            at[name] = config_dict.ConfigDict()
          at = at[name]
        at[key] = value
  return result


def _reference(run: Run) -> Fields:
  return fields.of_config(shipped.load(run.reference, *run.variant))


@functools.cache
def _of_all_runs() -> frozenset[str]:
  """Names of the fields of all runs: a configuration may serve several."""
  return frozenset(path for run in RUNS.values() for path in _reference(run))


def _missing(
  path: str, field: Field, given: Mapping[str, Any], run: str
) -> str:
  """What must be there, if a field is not among those given."""
  see = f'--config={RUNS[run].reference}'
  parts = path.split('.')
  for i in range(1, len(parts)):
    section = '.'.join(parts[:i])
    if section in given:
      return (
        f'have {section} as a section with fields such as {path}, got '
        f'{given[section]!r}; see {see}.'
      )
    if not any(other.startswith(f'{section}.') for other in given):
      return (
        f'have the section {section} for run {run!r}, got none; '
        f'add it as in {see}, e.g. with {path} = {field.default!r}.'
      )
  inside = next((p for p in given if p.startswith(f'{path}.')), None)
  if inside:
    return (
      f'have {field.words} as {path}, got a section with {inside}; set it to '
      f'e.g. {field.default!r}.'
    )
  strange = [p for p in given if p not in _of_all_runs()]
  typo = fields.did_you_mean(path, strange)
  hint = f' (is it {typo} that was meant?)' if typo else ''
  return (
    f'have the field {path} for run {run!r}, got none{hint}; add '
    f'it, {field.default!r} in {see}.'
  )


def _unknown(path: str, value: Any, known: Mapping[str, Field]) -> str:
  """What must be, if a field is there that no run reads."""
  close = fields.did_you_mean(path, known)
  hint = f'did you mean {close}?' if close else 'remove it.'
  return f'have only fields that a run reads, got {path} = {value!r}; {hint}'
