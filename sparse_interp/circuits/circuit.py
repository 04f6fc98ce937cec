"""The Circuit artifact: what was kept, what replaces the rest, and whence.

A circuit is a directory with two files, documented here so that pages and
other people's tools can read it without this package.

circuit.json
  schema_version  1
  task, description
  model           fields of GPTConfig
  gates           'nodes' or 'edges': what was pruned; with edges, every
                  nonzero weight that is not listed is removed, too
  sites           [[site, width], ...] in the order of the forward pass
  nodes           {site: [kept channels, ascending]}
  node_count, edge_count
  calibration     {scale, shift}: see `calibration`
  ablation        {kind, over, tokens}
  formula         {name: sentence}
  metrics         {name: number or [low, high]}: see `faithfulness`
  prune_config    hyper-parameters of the search
  history         {step, task_loss, nodes or edges}: lists of equal length;
                  the last is the number of active gates
  examples        [{pieces, answer, other_answer, probability,
                  raw_probability, full_probability, condition, side}, ...]:
                  test prompts; probabilities of the right answer, see
                  `examples`
  provenance      seed, hashes, code version

circuit.npz
  edges/source_site, edges/target_site  int32, index into `sites`
  edges/source, edges/target            int32 channels
  edges/weight                          float32
  mean/<site>        float32 (width,): values that removed nodes take; under
                     an ablation by other prompts, means for comparison; with
                     attention sinks also of mixed values (<layer>.attn.y)
  score/<site>       float32 (width,): rank in (0, 1], no two alike; 1 first;
                     with gates on edges score/<source>-><target>, one for each
                     nonzero weight of the matrix, by rows
  activation/<site>  float32 (examples, length, kept): values in the circuit,
                     after AbsTopK, columns in the order of nodes[site]; the
                     full model's where `formula` does not say 'activation'
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

from sparse_interp.circuits.gates import EdgeIndex
from sparse_interp.circuits.parts import Parts
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices

SCHEMA_VERSION = 1
_JSON, _NPZ = 'circuit.json', 'circuit.npz'
_FREE_FIELDS = (
  'task',
  'description',
  'gates',
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
  gates: str
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
    """Kept edges: with gates on nodes, all between kept nodes."""
    return len(self.edges.weight)


def list_edges(
  config: GPTConfig,
  params: dict,
  index: EdgeIndex,
  parts: Parts,
  sites: Mapping[str, int],
) -> Edges:
  """Kept nonzero weights as a table (arXiv 2511.13653, section 4).

  Args:
    config: the model.
    params: its parameters.
    index: {matrix name: rows and columns of nonzero weights}.
    parts: of the circuit.
    sites: {site: width}, whose order numbers the sites.
  """
  number = {site: i for i, site in enumerate(sites)}
  columns = [[] for _ in Edges._fields]
  for matrix in edge_matrices(config):
    rows, targets = np.asarray(index[matrix.name])[:, parts.edges[matrix.name]]
    weights = np.asarray(matrix.block(params))[rows, targets]
    columns[0].append(np.full(rows.size, number[matrix.source]))
    columns[1].append(rows)
    columns[2].append(np.full(rows.size, number[matrix.target]))
    columns[3].append(targets)
    columns[4].append(weights)
  joined = [np.concatenate(column) for column in columns]
  return Edges(
    *(column.astype(np.int32) for column in joined[:4]),
    joined[4].astype(np.float32),
  )


def parts_of_circuit(circuit: Circuit, index: EdgeIndex) -> Parts:
  """Parts of a circuit in terms of the nonzero weights of its model.

  Args:
    circuit: the circuit.
    index: {matrix name: rows and columns of nonzero weights} of the model.
  """
  names = list(circuit.sites)
  edges = {}
  for name, pair in index.items():
    source, target = (names.index(site) for site in name.split('->'))
    mine = (circuit.edges.source_site == source) & (
      circuit.edges.target_site == target
    )
    kept = set(
      zip(
        circuit.edges.source[mine].tolist(),
        circuit.edges.target[mine].tolist(),
        strict=True,
      )
    )
    pairs = zip(*np.asarray(pair).tolist(), strict=True)
    edges[name] = np.array([one in kept for one in pairs], bool)
  return Parts(circuit.nodes, edges)


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
  for key, score in circuit.scores.items():
    arrays[f'score/{key}'] = np.asarray(score, np.float32)
  for site, mean in circuit.means.items():
    arrays[f'mean/{site}'] = np.asarray(mean, np.float32)
  for site in circuit.sites:
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
  kinds = {
    kind: {
      name.removeprefix(f'{kind}/'): array
      for name, array in arrays.items()
      if name.startswith(f'{kind}/')
    }
    for kind in ('mean', 'score', 'activation')
  }
  # Every site has these, and a circuit without them is damaged.
  for kind in ('mean', 'activation'):
    missing = [site for site in sites if site not in kinds[kind]]
    if missing:
      raise KeyError(f'{kind}/{missing[0]}')
  return Circuit(
    # Circuits from before there were edge gates do not say what was pruned.
    **{name: ({'gates': 'nodes'} | fields)[name] for name in _FREE_FIELDS},
    config=GPTConfig(**model),
    sites=sites,
    nodes={s: np.asarray(kept, int) for s, kept in fields['nodes'].items()},
    edges=Edges(*(arrays[f'edges/{name}'] for name in Edges._fields)),
    means=kinds['mean'],
    scores=kinds['score'],
    activations=kinds['activation'],
    scale=fields['calibration']['scale'],
    shift=fields['calibration']['shift'],
    example_tokens=arrays['examples/tokens'],
  )
