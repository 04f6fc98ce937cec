"""Whether the arrays of a circuit fit what its circuit.json says."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse_interp.files import circuit_files
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import (
  constant_sites,
  edge_ends,
  edge_matrices,
  edge_name,
  tied_key,
)

COLUMNS = ('source_site', 'source', 'target_site', 'target', 'weight')


def check_arrays(
  document: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  config: GPTConfig,
  path: pathlib.Path,
) -> None:
  """Checks names, shapes, kinds and values of all arrays.

  Args:
    document: circuit.json, checked.
    arrays: circuit.npz.
    config: architecture of the model.
    path: of circuit.npz, for messages.

  Raises:
    ValueError: something cannot be, named in one line.
  """

  def require(holds: bool, place: str, constraint: str, found: Any) -> None:
    if not holds:
      raise circuit_files.wrong(
        path, f'must have {place} {constraint}, got {found}'
      )

  sites = dict(document['sites'])
  shapes = _shapes(document, arrays, config, sites, require)
  for name, array in arrays.items():
    require(name in shapes, 'known arrays', 'only', f'{name[:60]!r}')
    kind = 'whole numbers' if _is_index(name) else 'finite numbers'
    kinds = 'iu' if _is_index(name) else 'f'
    require(array.dtype.kind in kinds, name, f'as {kind}', array.dtype)
    require(bool(np.isfinite(array).all()), name, f'as {kind}', 'others')
    if not _fits(array.shape, shapes[name]):
      wanted = ', '.join('_' if n is None else str(n) for n in shapes[name])
      require(False, name, f'of shape ({wanted})', array.shape)
  _check_examples(document, arrays, config, require)
  _check_edges(document, arrays, config, sites, require)


def _is_index(name):
  return name == 'examples/tokens' or (
    name.startswith('edges/') and name != 'edges/weight'
  )


def _shapes(document, arrays, config, sites, require):
  """{name: shape}, with None for lengths that nothing else says."""
  nodes = document['nodes']
  widths = constant_sites(config)
  tokens = arrays.get('examples/tokens')
  require(tokens is not None, 'examples/tokens', 'as an array', 'none')
  require(tokens.ndim == 2, 'examples/tokens', 'with two axes', tokens.shape)
  rows = (len(document['examples']), tokens.shape[1])
  shapes = {f'edges/{name}': (None,) for name in COLUMNS}
  shapes['examples/tokens'] = rows
  shapes |= {f'mean/{site}': (width,) for site, width in sites.items()}
  shapes |= {f'activation/{site}': (*rows, len(nodes[site])) for site in sites}
  for name in shapes:
    require(name in arrays, 'every array', 'that it needs', f'no {name!r}')
  shapes |= {f'mean/{site}': (width,) for site, width in widths.items()}
  # The same channel of queries and keys can be one unit.
  tied = {tied_key(site) for site in sites} - set(sites)
  shapes |= {f'score/{site}': (config.d_attn,) for site in tied}
  shapes |= {f'score/{site}': (width,) for site, width in sites.items()}
  shapes |= {f'score/{m.name}': (None,) for m in edge_matrices(config)}
  return shapes


def _fits(shape, wanted):
  return len(shape) == len(wanted) and all(
    b in (None, a) for a, b in zip(shape, wanted, strict=True)
  )


def _check_examples(document, arrays, config, require):
  tokens = arrays['examples/tokens']
  vocabulary = config.vocab_size
  inside = (tokens >= 0) & (tokens < vocabulary)
  found = tokens[~inside][:1].tolist()
  require(not found, 'examples/tokens', f'in [0, {vocabulary})', found)
  for i, example in enumerate(document['examples']):
    require(
      len(example['pieces']) <= tokens.shape[1],
      'examples/tokens',
      f'as long as the pieces of example {i}',
      f'{tokens.shape[1]} for {len(example["pieces"])}',
    )


def _check_edges(document, arrays, config, sites, require):
  columns = [arrays[f'edges/{name}'] for name in COLUMNS]
  lengths = {name: len(c) for name, c in zip(COLUMNS, columns, strict=True)}
  require(len(set(lengths.values())) == 1, 'edges', 'of equal length', lengths)
  require(bool(np.all(columns[4] != 0)), 'edges/weight', 'nonzero', 0)
  names = list(sites)
  matrices = {m.name for m in edge_matrices(config)}
  for name in ('source_site', 'target_site'):
    found = arrays[f'edges/{name}']
    wrong = found[(found < 0) | (found >= len(names))][:1].tolist()
    require(not wrong, f'edges/{name}', f'in [0, {len(names)})', wrong)
  kept = {site: set(channels) for site, channels in document['nodes'].items()}
  seen = set()
  for edge in zip(*(column.tolist() for column in columns[:4]), strict=True):
    source, target = names[edge[0]], names[edge[2]]
    shown = f'{source}:{edge[1]} -> {target}:{edge[3]}'
    matrix = edge_name(source, target)
    require(matrix in matrices, 'edges', 'where the model has weights', shown)
    for site, channel in ((source, edge[1]), (target, edge[3])):
      require(channel in kept[site], 'edges', 'between its nodes', shown)
    require(edge not in seen, 'edges', 'each once', f'{shown} twice')
    seen.add(edge)
  for name in matrices:
    score = arrays.get(f'score/{name}')
    most = math.prod(sites[site] for site in edge_ends(name))
    if score is not None:
      require(
        len(score) <= most,
        f'score/{name}',
        f'for at most {most} weights',
        len(score),
      )
