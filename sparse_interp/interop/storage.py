"""Compiled programs as single files of a few kB, read without Tracr."""

import dataclasses
import json
import os
import zipfile
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.files import whole_file
from sparse_interp.interop.program import CompiledProgram, Examples
from sparse_interp.models import GPT, GPTConfig

_VERSION = 1
_TEXT = ('name', 'output_kind', 'unique_tokens')
_LISTS = ('vocab', 'output_values', 'channels')


def save(program: CompiledProgram, path: str | os.PathLike) -> None:
  """Writes a program, whole or not at all; equal programs, equal files.

  Args:
    program: tokens and output values must be strings, numbers, booleans or
      None.
    path: of the file, ending in .npz.

  Raises:
    ValueError: if a token or value is none of these.
  """
  description = {
    'version': _VERSION,
    'config': dataclasses.asdict(program.config),
    'edges': sorted(program.edges),
    **{field: getattr(program, field) for field in _TEXT + _LISTS},
  }
  for value in program.vocab + program.output_values:
    if not isinstance(value, str | int | float | bool | None):
      raise ValueError(
        'tokens and values must be strings, numbers, booleans or None, got '
        f'{value!r}; have the program compute one of these.'
      )
  arrays = {
    f'params/{"/".join(key.key for key in keys)}': np.asarray(leaf)
    for keys, leaf in jax.tree.leaves_with_path(program.params)
  }
  for field, array in program.examples._asdict().items():
    arrays[f'examples/{field}'] = array
  text = np.array(json.dumps(description))
  with whole_file.writing(path) as part, part.open('wb') as file:
    np.savez_compressed(file, description=text, **arrays)


def load(path: str | os.PathLike) -> CompiledProgram:
  """Reads a program.

  Raises:
    OSError: if the file cannot be read.
    ValueError: if it is not a whole file of `save`.
  """
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError):
    raise _wrong(path, 'be a whole npz archive of plain arrays') from None
  except AttributeError:
    raise _wrong(path, 'be an npz archive, not one array') from None
  try:
    return _program(path, arrays)
  except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
    detail = ' '.join(str(error).split())[:100]
    raise _wrong(path, f'have every field ({detail})') from None


def _wrong(path: Any, constraint: str) -> ValueError:
  return ValueError(
    f'compiled program {os.fspath(path)} must {constraint}, got a damaged or '
    'foreign file; write it again with sparse_interp.interop.save.'
  )


def _program(path, arrays):
  fields = json.loads(str(arrays['description'][()]))
  if fields['version'] != _VERSION:
    raise _wrong(path, f'be of version {_VERSION}')
  model = dict(fields['config'])
  model['activation_sites'] = tuple(model['activation_sites'])
  config = GPTConfig(**model)
  program = CompiledProgram(
    config=config,
    params=_params(path, config, arrays),
    edges=frozenset((writer, reader) for writer, reader in fields['edges']),
    examples=_examples(path, config, arrays),
    **{field: fields[field] for field in _TEXT},
    **{field: tuple(fields[field]) for field in _LISTS},
  )
  sizes = {
    'vocab': (len(program.vocab), config.vocab_size),
    'channels': (len(program.channels), config.d_model),
  }
  if program.output_kind == 'categorical':
    outputs = len(program.output_values), config.output_width
    sizes['output_values'] = outputs
  elif program.output_kind != 'numerical':
    raise _wrong(path, 'have categorical or numerical outputs')
  for field, (found, expected) in sizes.items():
    if found != expected:
      raise _wrong(path, f'have {expected} {field}, not {found}')
  return program


def _params(path, config, arrays):
  """The parameter tree of the model, from arrays of exactly its shapes."""
  tokens = jnp.zeros((1, 1), int)
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)

  def leaf(keys, shape):
    name = f'params/{"/".join(key.key for key in keys)}'
    array = arrays[name]
    if array.shape != shape.shape or array.dtype != shape.dtype:
      raise _wrong(path, f'hold {name} as {shape.dtype} {shape.shape}')
    if not np.all(np.isfinite(array)):
      raise _wrong(path, f'hold finite numbers in {name}')
    return jnp.asarray(array)

  return jax.tree.map_with_path(leaf, shapes['params'])


def _examples(path, config, arrays):
  tokens, lengths, outputs = (arrays[f'examples/{f}'] for f in Examples._fields)
  time = config.context_length
  count = len(lengths)
  shapes = [(count, time), (count,), (count, time, config.output_width)]
  found = [tokens.shape, lengths.shape, outputs.shape]
  if found != shapes or tokens.dtype.kind + lengths.dtype.kind != 'ii':
    raise _wrong(path, 'hold examples of the shapes of its model')
  return Examples(tokens, lengths, outputs)
