"""Whether what the files of records say can be.

Everything here raises ValueErrors whose message is the part of a sentence that
begins with 'must', after the name of the file.
"""

import itertools
from collections.abc import Set
from typing import Any

import numpy as np

KINDS = ('top', 'quantile', 'random')

# {name: dtype, shape}; numbers in the JSON are given by their names.
ARRAYS = {
  'mean': ('float64', ('units',)),
  'active': ('float64', ('units',)),
  'lowest': ('float32', ('units',)),
  'highest': ('float32', ('units',)),
  'edges': ('float32', ('units', 'edges')),
  'unit': ('int32', ('excerpts',)),
  'kind': ('int32', ('excerpts',)),
  'quantile': ('int32', ('excerpts',)),
  'window': ('int32', ('excerpts',)),
  'start': ('int32', ('excerpts',)),
  'position': ('int32', ('excerpts',)),
  'tokens': ('int32', ('excerpts', 'length')),
  'values': ('float32', ('excerpts', 'length')),
}

# {name: least value}.
_NUMBERS = {
  'seed': 0,
  'top': 0,
  'quantiles': 1,
  'per_quantile': 0,
  'random': 0,
  'length': 1,
  'windows': 1,
  'window_length': 1,
}


def check_document(document: dict[str, Any], fields: Set[str]) -> None:
  """Checks the JSON.

  Args:
    document: without schema_version.
    fields: that it must have.

  Raises:
    ValueError: a field is missing, unknown, or of another kind.
  """
  if document.keys() != fields:
    different = min(document.keys() ^ fields)
    raise ValueError(
      f'must have its fields and no others, differs in {different!r:.40}'
    )
  for name, least in _NUMBERS.items():
    value = document[name]
    if type(value) is not int or not least <= value < 2**63:
      raise ValueError(
        f'must have {name} as an integer from {least} on, got {value!r:.40}'
      )
  if document['length'] > document['window_length']:
    raise ValueError(
      f'must have length of at most window_length {document["window_length"]}, '
      f'got {document["length"]}'
    )
  for name in ('model', 'formula', 'versions'):
    if not isinstance(document[name], dict):
      raise ValueError(f'must have {name} as an object, got another kind')
  _check_texts(document)


def _check_texts(document: dict[str, Any]) -> None:
  """Names, hashes, and pieces of text."""
  units = document['units']
  if not isinstance(units, list) or not units:
    raise ValueError(f'must list units, got {units!r:.40}')
  texts = [*units, document['model_hash'], document['text_hash']]
  if document['tokenizer_hash'] is not None:
    texts.append(document['tokenizer_hash'])
  if not all(isinstance(text, str) for text in texts):
    raise ValueError('must have units and hashes as texts, got others')
  if len(set(units)) < len(units):
    raise ValueError('must have units that differ, got one twice')
  pieces = document['pieces']
  if not isinstance(pieces, list) or not all(
    isinstance(entry, list) and [type(part) for part in entry] == [int, str]
    for entry in pieces
  ):
    raise ValueError('must have pieces as pairs of token and text, got others')
  if any(one[0] >= other[0] for one, other in itertools.pairwise(pieces)):
    raise ValueError('must have pieces by token, ascending, got others')


def check_arrays(
  document: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
  """Checks the arrays.

  Args:
    document: that passed `check_document`.
    arrays: by name.

  Raises:
    ValueError: one is missing, unknown, of another shape or dtype, or holds
      what cannot be.
  """
  if arrays.keys() != ARRAYS.keys():
    different = min(arrays.keys() ^ ARRAYS.keys())
    raise ValueError(
      f'must have its arrays and no others, differs in {different!r:.40}'
    )
  sizes = {
    'units': len(document['units']),
    'edges': document['quantiles'] + 1,
    'length': document['length'],
    'excerpts': arrays['unit'].size,
  }
  for name, (dtype, shape) in ARRAYS.items():
    array, expected = arrays[name], tuple(sizes[size] for size in shape)
    if array.shape != expected or array.dtype != dtype:
      raise ValueError(
        f'must have {name} as {dtype} {expected}, got {array.dtype} '
        f'{array.shape}'
      )
  _check_ranges(document, arrays)
  _check_statistics(arrays)
  _check_order(document, arrays)
  _check_tokens(document, arrays['tokens'])


def _check_ranges(
  document: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
  most = {
    'unit': len(document['units']) - 1,
    'kind': len(KINDS) - 1,
    'quantile': document['quantiles'] - 1,
    'window': document['windows'] - 1,
    'start': document['window_length'] - document['length'],
    'position': document['length'] - 1,
  }
  for name, highest in most.items():
    found, lowest = arrays[name], -1 if name == 'quantile' else 0
    if found.size and not lowest <= found.min() <= found.max() <= highest:
      raise ValueError(
        f'must have {name} from {lowest} to {highest}, got {found.min()} to '
        f'{found.max()}'
      )
  for name, array in arrays.items():
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
      raise ValueError(f'must have finite numbers in {name}, got others')


def _check_statistics(arrays: dict[str, np.ndarray]) -> None:
  active, edges = arrays['active'], arrays['edges']
  if not ((active >= 0) & (active <= 1)).all():
    raise ValueError('must have active as shares from 0 to 1, got others')
  if (np.diff(edges, axis=1) < 0).any():
    raise ValueError('must have edges that ascend, got others')
  # Zeros count here, and edges are of what is not zero.
  zero = (
    np.where(active < 1, 0, edges[:, 0]),
    np.where(active < 1, 0, edges[:, -1]),
  )
  if (arrays['lowest'] != np.minimum(edges[:, 0], zero[0])).any() or (
    arrays['highest'] != np.maximum(edges[:, -1], zero[1])
  ).any():
    raise ValueError('must have lowest and highest that fit the edges')


def _check_order(
  document: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
  """The order of excerpts, and how many there are of a kind."""
  unit, kind, quantile = (arrays[n] for n in ('unit', 'kind', 'quantile'))
  if ((quantile >= 0) != (kind == KINDS.index('quantile'))).any():
    raise ValueError('must have quantiles for excerpts by quantile only')
  table = np.stack([unit, kind, quantile], axis=1)
  if (np.lexsort(table.T[::-1]) != np.arange(len(table))).any():
    raise ValueError('must have excerpts by unit, kind and quantile, in order')
  groups, counts = np.unique(table, axis=0, return_counts=True)
  most = np.array([document[n] for n in ('top', 'per_quantile', 'random')])
  if (counts > most[groups[:, 1]]).any():
    raise ValueError(
      f'must have at most {most.tolist()} excerpts of a kind, got more'
    )


def _check_tokens(document: dict[str, Any], tokens: np.ndarray) -> None:
  used = np.unique(tokens)
  pieces = [token for token, _ in document['pieces']]
  if pieces and used.tolist() != pieces:
    raise ValueError('must have the tokens that pieces name, got others')
  vocabulary = document['model'].get('vocab_size')
  if type(vocabulary) is not int:
    raise ValueError('must be of a model with a vocab_size, got none')
  if used.size and not 0 <= used[0] <= used[-1] < vocabulary:
    raise ValueError(
      f'must have tokens from 0 to {vocabulary - 1}, got {used[0]} to '
      f'{used[-1]}'
    )
