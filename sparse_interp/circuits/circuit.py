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
  ablation        {kind, over, tokens, closed}: see `gates.apply_gates`
  formula         {name: sentence}
  metrics         {name: number or [low, high]}: see `faithfulness`
  prune_config    hyper-parameters of the search
  history         {step, task_loss, nodes or edges}: lists of equal length
  examples        [{pieces, answer, other_answer, probability,
                  raw_probability, full_probability, condition, side}, ...]:
                  test prompts; probabilities of the right answer, see
                  `examples`
  provenance      seed, hashes, code version
  npz_sha256      of circuit.npz
  sha256          of all the other fields; see `files.sealed`

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
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import sparse_interp
from sparse_interp.circuits import circuit_check
from sparse_interp.circuits.gating.gates import EdgeIndex
from sparse_interp.circuits.parts import Parts
from sparse_interp.files import circuit_files
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_ends, edge_matrices

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


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
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
  def closed(self) -> bool:
    """Whether what is removed is constant wherever it is read."""
    return bool(self.ablation.get('closed', False))

  @property
  def node_count(self) -> int:
    """Kept nodes at all sites."""
    return sum(len(kept) for kept in self.nodes.values())

  @property
  def edge_count(self) -> int:
    """Kept edges: with gates on nodes, all between kept nodes."""
    return len(self.edges.weight)

  def node_names(self) -> list[str]:
    """'site:channel' of every kept node, in the order of the forward pass."""
    return [
      f'{site}:{channel}'
      for site in self.sites
      for channel in self.nodes.get(site, ())
    ]

  def edge_names(self) -> list[tuple[str, str, float]]:
    """(source, target, weight) of every kept edge, nodes by their names."""
    sites = list(self.sites)
    return [
      (f'{sites[a]}:{source}', f'{sites[b]}:{target}', weight)
      for a, source, b, target, weight in zip(
        *(column.tolist() for column in self.edges), strict=True
      )
    ]

  def document(self) -> dict[str, Any]:
    """What circuit.json holds, but for the hashes of the files."""
    return {
      'schema_version': circuit_files.SCHEMA_VERSION,
      **{name: getattr(self, name) for name in _FREE_FIELDS},
      'model': dataclasses.asdict(self.config),
      'sites': [[site, width] for site, width in self.sites.items()],
      'nodes': {site: kept.tolist() for site, kept in self.nodes.items()},
      'node_count': self.node_count,
      'edge_count': self.edge_count,
      'calibration': {'scale': self.scale, 'shift': self.shift},
    }

  def arrays(self) -> dict[str, np.ndarray]:
    """What circuit.npz holds."""
    return _arrays(self)

  def __repr__(self) -> str:
    loss = self.metrics.get('test_loss')
    told = '' if loss is None else f', test loss {loss:.3f}'
    return (
      f'Circuit({self.task}: {self.node_count} nodes, {self.edge_count} edges'
      f'{told}, gates on {self.gates}, {self.ablation.get("kind")} ablation)'
    )

  def _repr_html_(self) -> str:
    """The drawing, for notebooks."""
    # Pages know circuits, not the other way round: the interface of the
    # package is where both are known.
    return sparse_interp.circuit_html(self)


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
    source, target = (names.index(site) for site in edge_ends(name))
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


# What makes a directory a circuit.
FILES = (circuit_files.JSON, circuit_files.NPZ)


def save(circuit: Circuit, directory: str | os.PathLike) -> None:
  """Writes a circuit; at no moment is there a half-written one.

  Args:
    circuit: the circuit.
    directory: made if missing.

  Raises:
    OSError: if the disk is full or may not be written to; a circuit that
      stood there before is then untouched.
  """
  circuit_files.write(directory, circuit.document(), circuit.arrays())


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
    directory: what `save` wrote, or what somebody made by hand in that format.

  Raises:
    ValueError: if a file is missing, damaged, of an unknown version or says
      what cannot be; the message names the file and what to do.
  """
  fields, arrays = circuit_files.read(directory)
  config = circuit_check.check(fields, arrays, directory)

  def of_kind(kind):
    return {
      name.removeprefix(kind): array
      for name, array in arrays.items()
      if name.startswith(kind)
    }

  return Circuit(
    # Circuits from before there were edge gates do not say what was pruned.
    **{name: ({'gates': 'nodes'} | fields)[name] for name in _FREE_FIELDS},
    config=config,
    sites=dict(fields['sites']),
    nodes={s: np.asarray(kept, int) for s, kept in fields['nodes'].items()},
    edges=Edges(*(arrays[f'edges/{name}'] for name in Edges._fields)),
    means=of_kind('mean/'),
    scores=of_kind('score/'),
    activations=of_kind('activation/'),
    scale=fields['calibration']['scale'],
    shift=fields['calibration']['shift'],
    example_tokens=arrays['examples/tokens'],
  )
