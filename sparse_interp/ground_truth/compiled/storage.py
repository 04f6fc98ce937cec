"""Compiled programs as single files of a few kB, read without Tracr.

What a file says is checked when it is read: arrays by their shapes, examples by
running the model, true edges by its weights, and everything by a hash that
`save` leaves in it.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.files import json_text, npz, sealed, whole_file
from sparse_interp.ground_truth.compiled import program_checks
from sparse_interp.ground_truth.compiled.program import (
  CompiledProgram,
  Examples,
)
from sparse_interp.models import GPT, GPTConfig

_VERSION = 1
_TEXT = ('name', 'output_kind', 'unique_tokens')
_LISTS = ('vocab', 'output_values', 'channels')
_DESCRIPTION = 'description'
_AGAIN = 'write it again with sparse_interp.ground_truth.compiled.storage.save'
# Programs are small; files that ask for more are no programs.
_MOST_BYTES = 256 * 2**20


def save(program: CompiledProgram, path: str | os.PathLike) -> None:
  """Writes a program, whole or not at all; equal programs, equal files.

  Args:
    program: tokens and output values must be strings, finite numbers, booleans
      or None.
    path: of the file, ending in .npz.

  Raises:
    ValueError: if a token or value is none of these.
  """
  for value in program.vocab + program.output_values:
    plain = isinstance(value, str | int | float | bool | None)
    if not plain or (isinstance(value, float) and not np.isfinite(value)):
      raise ValueError(
        'tokens and values must be strings, finite numbers, booleans or None, '
        f'got {value!r}; have the program compute one of these.'
      )
  arrays = {
    f'params/{"/".join(key.key for key in keys)}': np.asarray(leaf)
    for keys, leaf in jax.tree.leaves_with_path(program.params)
  }
  for field, array in program.examples._asdict().items():
    arrays[f'examples/{field}'] = np.asarray(array)
  description = {
    'version': _VERSION,
    'config': dataclasses.asdict(program.config),
    'edges': sorted(program.edges),
    **{field: getattr(program, field) for field in _TEXT + _LISTS},
    'arrays': {name: _digest(array) for name, array in arrays.items()},
  }
  description = json.loads(json.dumps(description))
  description[sealed.SEAL] = sealed.seal_of(description)
  text = np.array(json.dumps(description))
  with whole_file.writing(path) as part, part.open('wb') as file:
    members: dict[str, Any] = {_DESCRIPTION: text, **arrays}
    np.savez_compressed(file, **members)


def load(path: str | os.PathLike) -> CompiledProgram:
  """Reads a program.

  Raises:
    OSError: if the file cannot be read.
    ValueError: if it is not a whole file of `save`, or says what is not so.
  """
  with npz.opened(path, _AGAIN, _MOST_BYTES) as archive:
    try:
      return _program(archive)
    except _WrongError as error:
      constraint = str(error)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
      detail = ' '.join(str(error).split())[:100]
      constraint = f'have every field ({detail})'
  raise ValueError(
    f'compiled program {os.fspath(path)} must {constraint}, got a damaged or '
    f'foreign file; {_AGAIN}.'
  )


class _WrongError(Exception):
  """What a file must do."""


def _digest(array: np.ndarray) -> str:
  kind = f'{array.dtype.str} {array.shape} '
  return hashlib.sha256(kind.encode() + array.tobytes()).hexdigest()


def _program(archive: npz.Archive) -> CompiledProgram:
  if _DESCRIPTION not in archive.headers:
    raise _WrongError('hold a description')
  try:
    fields = json_text.parse(str(archive.read(_DESCRIPTION)))
  except ValueError as error:
    raise _WrongError(f'have a description in JSON, not {error}') from None
  if not isinstance(fields, dict) or fields.get('version') != _VERSION:
    raise _WrongError(f'be of version {_VERSION}')
  _check_kinds(fields)
  config = _config(fields['config'], len(archive.headers))
  expected = _shapes(config, len(fields['channels']))
  names = {
    _DESCRIPTION,
    *expected,
    *(f'examples/{f}' for f in Examples._fields),
  }
  for name in sorted(names ^ archive.headers.keys()):
    known = 'an array' if name in names else 'no array'
    raise _WrongError(f'hold {known} {name[:60]}')
  for name, shape in expected.items():
    if archive.headers[name] != (shape.shape, shape.dtype):
      raise _WrongError(f'hold {name} as {shape.dtype} {shape.shape}')
  arrays = {name: archive.read(name) for name in names - {_DESCRIPTION}}
  _check_seal(fields, arrays)
  params: dict[str, Any] = {}
  for name in expected:
    branch, (*path, last) = params, name.split('/')[1:]
    for key in path:
      branch = branch.setdefault(key, {})
    branch[last] = jnp.asarray(arrays[name])
  program = CompiledProgram(
    config=config,
    params=params,
    edges=frozenset((writer, reader) for writer, reader in fields['edges']),
    examples=Examples(*(arrays[f'examples/{f}'] for f in Examples._fields)),
    **{field: fields[field] for field in _TEXT},
    **{field: tuple(fields[field]) for field in _LISTS},
  )
  if len(program.edges) < len(fields['edges']):
    raise _WrongError('have every edge once')
  constraint = program_checks.broken(program)
  if constraint:
    raise _WrongError(constraint)
  return program


def _check_kinds(fields: Mapping[str, Any]) -> None:
  for field, kind in (
    ('config', dict),
    ('edges', list),
    ('name', str),
    ('unique_tokens', bool),
    *((field, list) for field in _LISTS),
  ):
    if not isinstance(fields[field], kind):
      raise _WrongError(f'have {field} as {kind.__name__}')
  for edge in fields['edges']:
    if not isinstance(edge, list) or [*map(type, edge)] != [str, str]:
      raise _WrongError('have pairs of names as edges')
  for value in fields['vocab'] + fields['output_values']:
    if isinstance(value, dict | list):
      raise _WrongError('have plain values as tokens and outputs')


def _config(fields: Mapping[str, Any], arrays: int) -> GPTConfig:
  fields = dict(fields)
  fields['activation_sites'] = tuple(fields['activation_sites'])
  try:
    config = GPTConfig(**fields)
  except ValueError as error:
    raise _WrongError(f'describe a model ({error})') from None
  if config.n_layer > arrays:
    raise _WrongError(f'hold {config.n_layer} layers')
  return config


def _shapes(config: GPTConfig, channels: int) -> dict[str, Any]:
  """{name: shape and dtype} of all parameters of the model."""
  if channels != config.d_model:
    raise _WrongError(f'have {config.d_model} channels, not {channels}')
  tokens = jnp.zeros((1, 1), int)
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)
  return {
    f'params/{"/".join(key.key for key in keys)}': shape
    for keys, shape in jax.tree.leaves_with_path(shapes['params'])
  }


def _check_seal(
  fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
  """Compares with the hashes of `save`; files from before there were any pass.

  A false edge that is possible, or one that is missing, is seen by this alone.
  """
  if sealed.SEAL not in fields:
    return
  if fields[sealed.SEAL] != sealed.seal_of(fields):
    raise _WrongError('have the description that was written')
  if fields['arrays'] != {name: _digest(a) for name, a in arrays.items()}:
    raise _WrongError('hold the arrays that were written')
