"""The Circuit artifact: what was kept, what replaces the rest, and whence.

A circuit is a directory with two files, documented here so that pages and
other people's tools can read it without this package.

circuit.json
  schema_version  1
  task, description
  model           fields of GPTConfig
  sites           [[site, width], ...] in the order of the forward pass
  nodes           {site: [kept channels, ascending]}
  node_count, edge_count
  calibration     {scale, shift}: see `calibration`
  ablation        {kind, over, tokens}
  formula         {name: sentence}
  metrics         {name: number or [low, high]}: see `faithfulness`
  prune_config    hyper-parameters of the search
  history         {step, task_loss, nodes}: lists of equal length
  examples        [{pieces, answer, other_answer, probability, condition,
                  side}, ...]: test prompts, probability of the right answer
  provenance      seed, hashes, code version

circuit.npz
  edges/source_site, edges/target_site  int32, index into `sites`
  edges/source, edges/target            int32 channels
  edges/weight                          float32
  mean/<site>        float32 (width,): values that removed nodes take
  score/<site>       float32 (width,): rank in (0, 1], no two alike; 1 first
  activation/<site>  float32 (examples, length, kept): full model's values,
                     after AbsTopK, columns in the order of nodes[site]
  examples/tokens    int32 (examples, length)
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices

SCHEMA_VERSION = 1
_JSON, _NPZ = 'circuit.json', 'circuit.npz'
_FREE_FIELDS = (
  'task',
  'description',
  'ablation',
  'formula',
  'metrics',
  'prune_config',
  'history',
  'examples',
  'provenance',
)


class Edges(NamedTuple):
  """Nonzero weights between kept nodes; sites by their index in the order."""

  source_site: Int[np.ndarray, 'edges']
  source: Int[np.ndarray, 'edges']
  target_site: Int[np.ndarray, 'edges']
  target: Int[np.ndarray, 'edges']
  weight: Float[np.ndarray, 'edges']


@dataclasses.dataclass(frozen=True, eq=False)
class Circuit:
  """A circuit; the fields are those of the files described above."""

  task: str
  description: str
  config: GPTConfig
  sites: dict[str, int]
  nodes: dict[str, Int[np.ndarray, '_']]
  edges: Edges
  means: dict[str, Float[np.ndarray, '_']]
  scores: dict[str, Float[np.ndarray, '_']]
  scale: float
  shift: float
  ablation: dict[str, Any]
  formula: dict[str, str]
  metrics: dict[str, Any]
  prune_config: dict[str, Any]
  history: dict[str, list]
  examples: list[dict[str, Any]]
  example_tokens: Int[np.ndarray, 'examples length']
  activations: dict[str, Float[np.ndarray, 'examples length _']]
  provenance: dict[str, Any]

  @property
  def node_count(self) -> int:
    """Kept nodes at all sites."""
    return sum(len(kept) for kept in self.nodes.values())

  @property
  def edge_count(self) -> int:
    """Nonzero weights between kept nodes."""
    return len(self.edges.weight)


def find_edges(
  config: GPTConfig,
  params: dict,
  nodes: Mapping[str, Int[np.ndarray, '_']],
  sites: Mapping[str, int],
) -> Edges:
  """All nonzero weights between kept nodes (arXiv 2511.13653, section 4).

  Args:
    config: the model.
    params: its parameters.
    nodes: {site: kept channels}.
    sites: {site: width}, whose order numbers the sites.
  """
  number = {site: i for i, site in enumerate(sites)}
  columns = [[] for _ in Edges._fields]
  for matrix in edge_matrices(config):
    kernel = params
    for key in matrix.path:
      kernel = kernel[key]
    block = np.asarray(kernel[:, matrix.start : matrix.stop])
    rows, targets = nodes[matrix.source], nodes[matrix.target]
    block = block[np.ix_(rows, targets)]
    i, j = np.nonzero(block)
    columns[0].append(np.full(i.size, number[matrix.source]))
    columns[1].append(rows[i])
    columns[2].append(np.full(i.size, number[matrix.target]))
    columns[3].append(targets[j])
    columns[4].append(block[i, j])
  joined = [np.concatenate(column) for column in columns]
  return Edges(
    *(column.astype(np.int32) for column in joined[:4]),
    joined[4].astype(np.float32),
  )


def hash_params(params: dict) -> str:
  """Hash of names, shapes, dtypes and values of all parameters."""
  digest = hashlib.sha256()
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  for path, leaf in leaves:
    array = np.ascontiguousarray(leaf)
    name = jax.tree_util.keystr(path)
    digest.update(f'{name} {array.shape} {array.dtype}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]


def save(circuit: Circuit, directory: str | os.PathLike) -> None:
  """Writes a circuit; at no moment is there a half-written one.

  Both files are written under other names first. While they are exchanged,
  circuit.json, which makes a directory a circuit, does not exist.

  Args:
    circuit: the circuit.
    directory: made if missing.

  Raises:
    OSError: if the disk is full or may not be written to; a circuit that
      stood there before is then untouched.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  temporary = {name: directory / f'.{name}.partial' for name in (_JSON, _NPZ)}
  try:
    with open(temporary[_NPZ], 'wb') as file:
      np.savez_compressed(file, **_arrays(circuit))
      _flush(file)
    with open(temporary[_JSON], 'w', encoding='utf-8') as file:
      json.dump(_description(circuit), file, indent=1, allow_nan=False)
      _flush(file)
    (directory / _JSON).unlink(missing_ok=True)
    os.replace(temporary[_NPZ], directory / _NPZ)
    os.replace(temporary[_JSON], directory / _JSON)
  finally:
    for path in temporary.values():
      path.unlink(missing_ok=True)


def _flush(file):
  file.flush()
  os.fsync(file.fileno())


def _description(circuit):
  return {
    'schema_version': SCHEMA_VERSION,
    **{name: getattr(circuit, name) for name in _FREE_FIELDS},
    'model': dataclasses.asdict(circuit.config),
    'sites': [[site, width] for site, width in circuit.sites.items()],
    'nodes': {site: kept.tolist() for site, kept in circuit.nodes.items()},
    'node_count': circuit.node_count,
    'edge_count': circuit.edge_count,
    'calibration': {'scale': circuit.scale, 'shift': circuit.shift},
  }


def _arrays(circuit):
  arrays = {'examples/tokens': circuit.example_tokens.astype(np.int32)}
  for name, column in circuit.edges._asdict().items():
    arrays[f'edges/{name}'] = column
  for site in circuit.sites:
    arrays[f'mean/{site}'] = np.asarray(circuit.means[site], np.float32)
    arrays[f'score/{site}'] = np.asarray(circuit.scores[site], np.float32)
    arrays[f'activation/{site}'] = np.asarray(
      circuit.activations[site], np.float32
    )
  return arrays


def load(directory: str | os.PathLike) -> Circuit:
  """Reads a circuit.

  Args:
    directory: what `save` wrote.

  Raises:
    ValueError: if a file is missing, damaged or of an unknown version; the
      message names the file and what to do.
  """
  path = pathlib.Path(directory) / _JSON
  try:
    with open(path, encoding='utf-8') as file:
      fields = json.load(file)
  except FileNotFoundError:
    raise _unreadable(path, 'exist', 'no file') from None
  except (json.JSONDecodeError, UnicodeDecodeError):
    raise _unreadable(path, 'be whole JSON', 'a damaged file') from None
  version = fields.get('schema_version') if isinstance(fields, dict) else None
  if version != SCHEMA_VERSION:
    raise ValueError(
      f'schema_version of {path} must be {SCHEMA_VERSION}, got {version!r}; '
      'prune again, or read it with the version that wrote it.'
    )
  try:
    return _circuit(fields, _read_arrays(path.with_name(_NPZ)))
  except (KeyError, TypeError) as error:
    raise _unreadable(path, 'have every field', str(error)) from None


def _unreadable(path, constraint, found):
  return ValueError(
    f'circuit file {path} must {constraint}, got {found}; prune again, or '
    'restore it.'
  )


def _read_arrays(path):
  try:
    with np.load(path) as archive:
      return {name: archive[name] for name in archive.files}
  except FileNotFoundError:
    raise _unreadable(path, 'exist', 'no file') from None
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError):
    raise _unreadable(
      path, 'be a whole npz archive', 'a damaged file'
    ) from None


def _circuit(fields, arrays):
  model = dict(fields['model'])
  model['activation_sites'] = tuple(model['activation_sites'])
  sites = dict(fields['sites'])
  by_site = {
    kind: {site: arrays[f'{kind}/{site}'] for site in sites}
    for kind in ('mean', 'score', 'activation')
  }
  return Circuit(
    **{name: fields[name] for name in _FREE_FIELDS},
    config=GPTConfig(**model),
    sites=sites,
    nodes={s: np.asarray(kept, int) for s, kept in fields['nodes'].items()},
    edges=Edges(*(arrays[f'edges/{name}'] for name in Edges._fields)),
    means=by_site['mean'],
    scores=by_site['score'],
    activations=by_site['activation'],
    scale=fields['calibration']['scale'],
    shift=fields['calibration']['shift'],
    example_tokens=arrays['examples/tokens'],
  )
