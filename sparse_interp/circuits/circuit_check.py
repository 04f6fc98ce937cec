"""Whether the files of a circuit say what can be: for circuits made by hand.

Each check names the file and the place, says what must hold there and what was
found. What passes can be drawn, extracted and compared without further care.
"""

import itertools
import math
import os
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

from sparse_interp.circuits.circuit_arrays import check_arrays
from sparse_interp.files import circuit_files
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import node_sites

_OBJECTS = (
  'model',
  'nodes',
  'calibration',
  'ablation',
  'formula',
  'metrics',
  'prune_config',
  'history',
  'provenance',
)
_KINDS = {
  **dict.fromkeys(_OBJECTS, dict),
  **dict.fromkeys(('task', 'description', 'gates'), str),
  **dict.fromkeys(('sites', 'examples'), list),
  **dict.fromkeys(('schema_version', 'node_count', 'edge_count'), int),
}
_WORDS = {dict: 'an object', str: 'text', list: 'a list', int: 'a whole number'}
# Circuits from before there were edge gates do not say what was pruned.
_OPTIONAL = {'gates'}
# Deeper than any file of ours, and less than Python can walk.
_DEEPEST = 50


def check(
  document: Mapping[str, Any],
  arrays: Mapping[str, Any],
  directory: str | os.PathLike,
) -> GPTConfig:
  """Checks all that a circuit says of itself.

  Args:
    document: circuit.json.
    arrays: circuit.npz.
    directory: of both, for messages.

  Returns:
    The architecture of its model.

  Raises:
    ValueError: something cannot be, named in one line.
  """
  path = pathlib.Path(directory) / circuit_files.JSON

  def require(holds: bool, place: str, constraint: str, found: Any) -> None:
    if not holds:
      place = ' '.join(place.split())[:80]  # keys can be anything
      raise circuit_files.wrong(
        path, f'must have {place} {constraint}, got {short(found)}'
      )

  _check_kinds(document, path)
  _check_finite(document, require)
  config = _config(document['model'], path)
  sites = _check_sites(document, config, require)
  _check_nodes(document, sites, require)
  _check_examples(document, require)
  _check_rest(document, require)
  check_arrays(document, arrays, config, path.with_name(circuit_files.NPZ))
  edges = len(arrays['edges/weight'])
  require(
    document['edge_count'] == edges,
    'edge_count',
    f'of the {edges} edges in {circuit_files.NPZ}',
    document['edge_count'],
  )
  return config


def short(value: Any) -> str:
  """A value as it stands in messages, in one line."""
  text = ' '.join(f'{value!r}'.split())
  return text if len(text) <= 60 else f'{text[:57]}...'


def _check_kinds(document, path):
  missing = set(_KINDS) - _OPTIONAL - set(document)
  if missing:
    name = next(name for name in _KINDS if name in missing)
    raise circuit_files.wrong(
      path, f'must have every field, got none named {name!r}'
    )
  for name, value in document.items():
    kind = _KINDS.get(name)
    if kind is None:
      raise circuit_files.wrong(
        path, f'must have known fields only, got {short(name)}'
      )
    if not isinstance(value, kind) or isinstance(value, bool):
      raise circuit_files.wrong(
        path, f'must have {_WORDS[kind]} as {name}, got {short(value)}'
      )


def _check_finite(document, require):
  level = [(name, value, name) for name, value in document.items()]
  for _ in range(_DEEPEST):
    below = []
    for name, value, top in level:
      if isinstance(value, float):
        require(math.isfinite(value), name, 'finite', value)
      elif isinstance(value, dict):
        below += [(f'{name}.{key}', one, top) for key, one in value.items()]
      elif isinstance(value, list):
        below += [(name, one, top) for one in value]
    level = below
  for _, _, top in level:
    require(False, top, f'nested less than {_DEEPEST} deep', 'more')


def _config(fields, path):
  try:
    for name, hint in typing.get_type_hints(GPTConfig).items():
      if name in fields and name != 'activation_sites':
        _check_kind(f'model.{name}', fields[name], hint)
    sites = fields['activation_sites']
    if not isinstance(sites, list) or {type(s) for s in sites} - {str}:
      raise TypeError(f'model.activation_sites = {short(sites)}')
    return GPTConfig(**{**fields, 'activation_sites': tuple(sites)})
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    text = ' '.join(str(error).split())[:160]
    raise circuit_files.wrong(
      path, f'must have a model that can be, got this: {text}'
    ) from None


def _check_kind(place, value, hint):
  """Raises TypeError unless a value is of a kind such as int | None."""
  kinds = typing.get_args(hint) or (hint,)
  if float in kinds:
    kinds += (int,)
  if isinstance(value, bool) != (bool in kinds) or not isinstance(value, kinds):
    raise TypeError(f'{place} = {short(value)}')


def _check_sites(document, config, require):
  found = document['sites']
  # Widths first: the model of a hostile file may have any number of layers.
  require(
    len(found) in (8 * config.n_layer, 8 * config.n_layer + 1),
    'as many sites',
    f'as a model of {config.n_layer} layers',
    len(found),
  )
  known = node_sites(config, len(found) % 8 == 1)
  for entry, expected in zip(found, known.items(), strict=True):
    require(entry == list(expected), 'sites', f'with {list(expected)}', entry)
  return known


def _check_nodes(document, sites, require):
  nodes = document['nodes']
  for site in nodes:
    require(site in sites, 'nodes', 'at sites of the model', site)
  for site, width in sites.items():
    place = f'nodes of {site}'
    kept = nodes.get(site)
    require(isinstance(kept, list), place, 'as a list of channels', kept)
    for channel in kept:
      whole = isinstance(channel, int) and not isinstance(channel, bool)
      require(whole, place, 'as whole numbers', channel)
      require(0 <= channel < width, place, f'in [0, {width})', channel)
    for before, after in itertools.pairwise(kept):
      require(before < after, place, 'ascending', [before, after])
  count = sum(map(len, nodes.values()))
  require(
    document['node_count'] == count,
    'node_count',
    f'of the {count} nodes that it lists',
    document['node_count'],
  )


def _check_examples(document, require):
  for i, example in enumerate(document['examples']):
    place = f'examples[{i}]'
    require(isinstance(example, dict), place, 'as an object', example)
    pieces = example.get('pieces')
    require(
      isinstance(pieces, list) and all(isinstance(p, str) for p in pieces),
      f'{place}.pieces',
      'as a list of texts',
      pieces,
    )
    if 'probability' in example:
      found = example['probability']
      require(
        _is_number(found) and 0 <= found <= 1,
        f'{place}.probability',
        'in [0, 1]',
        found,
      )


def _check_rest(document, require):
  gates = document.get('gates', 'nodes')
  require(gates in ('nodes', 'edges'), 'gates', 'nodes or edges', gates)
  for name in ('scale', 'shift'):
    found = document['calibration'].get(name)
    require(_is_number(found), f'calibration.{name}', 'as a number', found)
  lengths = {}
  for name, column in document['history'].items():
    place = f'history.{name}'
    require(isinstance(column, list), place, 'as a list', column)
    require(all(map(_is_number, column)), place, 'as numbers', column)
    lengths[name] = len(column)
  equal = len(set(lengths.values())) <= 1
  require(equal, 'history', 'with lists of equal length', lengths)


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)
