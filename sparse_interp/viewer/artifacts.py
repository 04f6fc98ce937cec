"""Circuits as pages need them, from the two files of each.

The formats are documented files (json and npz), so this room needs neither the
model nor the code that pruned it.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from sparse_interp.files import circuit_files


@dataclasses.dataclass(frozen=True)
class StoredCircuit:
  """A circuit as read from disk, its nodes numbered 0..n-1.

  Attributes:
    name: of its directory.
    document: circuit.json.
    sites: names of all sites, in the order of the forward pass.
    nodes: (n, 2) int; index into `sites`, and channel.
    edges: (m, 2) int; numbers of the source and target node.
    weights: (m,) float32, one per edge.
    means: (n,) float32; the value of a node when it is ablated.
    scores: (n,) float32 of pruning, nan where none were stored.
    activations: (n, tokens of all examples) float32, examples one after the
      other.
  """

  name: str
  document: dict[str, Any]
  sites: tuple[str, ...]
  nodes: np.ndarray
  edges: np.ndarray
  weights: np.ndarray
  means: np.ndarray
  scores: np.ndarray
  activations: np.ndarray


def read_circuits(folder: pathlib.Path) -> list[StoredCircuit]:
  """Returns the circuits in the directories of a folder, by directory name."""
  paths = sorted(folder.glob('*/circuit.json'))
  return [read_circuit(path.parent) for path in paths]


def read_circuit(directory: pathlib.Path) -> StoredCircuit:
  """Returns the circuit stored in a directory.

  Raises:
    ValueError: a file is missing, damaged, of an unknown schema, or the two
      files do not belong together.
  """
  document, arrays = circuit_files.read(directory)
  try:
    return assemble(directory.resolve().name, document, arrays)
  except (KeyError, IndexError, TypeError, ValueError) as error:
    raise ValueError(
      f'{directory / circuit_files.NPZ} must match circuit.json beside it, got '
      f'{_one_line(error)}; {circuit_files.REMEDY}.'
    ) from None


def assemble(
  name: str, document: dict[str, Any], arrays: dict[str, np.ndarray]
) -> StoredCircuit:
  """Numbers the nodes of a circuit and gathers what is known of each."""
  sites = tuple(str(site) for site, _ in document['sites'])
  nodes, means, scores, activations = [], [], [], []
  lengths = [len(example['pieces']) for example in document['examples']]
  for number, site in enumerate(sites):
    channels = document['nodes'].get(site, [])
    if not channels:
      continue
    nodes += [(number, int(channel)) for channel in channels]
    means.append(arrays[f'mean/{site}'][channels])
    score = arrays.get(f'score/{site}')
    missing = np.full(len(channels), math.nan)
    scores.append(missing if score is None else score[channels])
    if lengths:
      activations.append(
        _token_rows(arrays[f'activation/{site}'], lengths, len(channels), site)
      )
  nodes = np.array(nodes, np.int64).reshape(-1, 2)
  edges = _edge_nodes(nodes, arrays, sites)
  for field, count in (('node_count', len(nodes)), ('edge_count', len(edges))):
    if document.get(field, count) != count:
      raise ValueError(f'{count} where {field} is {document[field]}')
  circuit = StoredCircuit(
    name=name,
    document=document,
    sites=sites,
    nodes=nodes,
    edges=edges,
    weights=np.asarray(arrays['edges/weight'], np.float32),
    means=_join(means),
    scores=_join(scores),
    activations=(
      np.concatenate(activations).astype(np.float32)
      if activations
      else np.zeros((len(nodes), 0), np.float32)
    ),
  )
  for field in ('weights', 'means', 'activations'):
    if not np.isfinite(getattr(circuit, field)).all():
      raise ValueError(f'{field} that are not finite')
  return circuit


def _edge_nodes(
  nodes: np.ndarray, arrays: dict[str, np.ndarray], sites: tuple[str, ...]
) -> np.ndarray:
  """Returns (m, 2) node numbers of the ends of every edge."""
  number = {(int(s), int(c)): i for i, (s, c) in enumerate(nodes)}
  ends = []
  for end in ('source', 'target'):
    places = np.stack([arrays[f'edges/{end}_site'], arrays[f'edges/{end}']], 1)
    for site, channel in places.tolist():
      if (site, channel) not in number:
        raise ValueError(
          f'an edge at {sites[site]}:{channel}, which is no node of the circuit'
        )
    ends.append([number[site, channel] for site, channel in places.tolist()])
  if len(ends[0]) != len(arrays['edges/weight']):
    raise ValueError('unequal numbers of edges and weights')
  return np.array(ends, np.int64).reshape(2, -1).T


def _token_rows(
  values: np.ndarray, lengths: list[int], width: int, site: str
) -> np.ndarray:
  """Returns (width, tokens): padding dropped, examples joined."""
  if values.ndim != 3 or values.shape[::2] != (len(lengths), width):
    raise ValueError(
      f'activation/{site} of shape {values.shape} for {len(lengths)} examples '
      f'and {width} nodes'
    )
  if max(lengths) > values.shape[1]:
    raise ValueError(f'activation/{site} shorter than the tokens of an example')
  rows = [values[i, :length] for i, length in enumerate(lengths)]
  return np.concatenate(rows).T


def _join(parts: list[np.ndarray]) -> np.ndarray:
  return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def _one_line(error: Exception) -> str:
  text = ' '.join(str(error).split()) or type(error).__name__
  return text.rstrip('.')
