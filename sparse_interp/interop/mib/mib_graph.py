"""Components of a model as the MIB circuit track names and scores them.

The input, heads `a{layer}.h{head}` and MLPs `m{layer}` write to the residual
stream; queries, keys and values of heads (`a0.h1<q>`), MLPs and `logits` read
from it. Edges lead from writers to later readers. Nodes are the writers,
neurons the residual channels that a writer writes to.

Source: `graph.py` of github.com/hannamw/EAP-IG.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from sparse_interp.circuits.circuit import Circuit


@dataclasses.dataclass(frozen=True, eq=False)
class Importances:
  """Scores of the components of a model, and which of them are a circuit.

  Attributes:
    n_layer: blocks.
    n_head: heads per block.
    d_model: width of the residual stream.
    parallel: whether an MLP reads the stream before the heads of its block
      have written to it.
    edge_scores: importance of each edge, 0 where there can be none.
    edges_kept: which edges are in the circuit.
    nodes_kept: which writers are.
    node_scores: importance of writers.
    neurons_kept: which of the channels that a writer writes are in it.
    neuron_scores: importance of these.
  """

  n_layer: int
  n_head: int
  d_model: int
  parallel: bool
  edge_scores: Float[np.ndarray, 'writers readers']
  edges_kept: Bool[np.ndarray, 'writers readers']
  nodes_kept: Bool[np.ndarray, 'writers']
  node_scores: Float[np.ndarray, 'writers'] | None = None
  neurons_kept: Bool[np.ndarray, 'writers d_model'] | None = None
  neuron_scores: Float[np.ndarray, 'writers d_model'] | None = None

  @property
  def edges(self) -> dict[str, tuple[int, int]]:
    """{name: (writer, reader)} of the edges that the model can have."""
    possible = possible_edges(self.n_layer, self.n_head, self.parallel)
    sources = writers(self.n_layer, self.n_head)
    targets = readers(self.n_layer, self.n_head)
    return {
      f'{sources[i]}->{targets[j]}': (i, j)
      for j in range(len(targets))
      for i in range(int(possible[:, j].sum()))
    }


def writers(n_layer: int, n_head: int) -> list[str]:
  """Names of what writes to the residual stream, in forward order."""
  names = ['input']
  for layer in range(n_layer):
    names += [f'a{layer}.h{head}' for head in range(n_head)]
    names.append(f'm{layer}')
  return names


def readers(n_layer: int, n_head: int) -> list[str]:
  """Names of what reads from the residual stream, in forward order."""
  names = []
  for layer in range(n_layer):
    names += [f'a{layer}.h{h}<{c}>' for c in 'qkv' for h in range(n_head)]
    names.append(f'm{layer}')
  return [*names, 'logits']


def possible_edges(
  n_layer: int, n_head: int, parallel: bool
) -> Bool[np.ndarray, 'writers readers']:
  """Which writers come before which readers.

  Args:
    n_layer: blocks.
    n_head: heads per block.
    parallel: whether an MLP reads the stream before the heads of its block
      have written to it.
  """
  limits = []
  for layer in range(n_layer):
    before = 1 + layer * (n_head + 1)
    limits += [before] * 3 * n_head
    limits.append(before if parallel else before + n_head)
  total = 1 + n_layer * (n_head + 1)
  return np.arange(total)[:, None] < np.array([*limits, total])


def connected(
  edges: Bool[np.ndarray, 'writers readers'], n_layer: int, n_head: int
) -> tuple[Bool[np.ndarray, 'writers readers'], Bool[np.ndarray, 'writers']]:
  """What the track's tools leave of a graph before they evaluate it.

  A component without edges on one of its sides goes, and with it the edges on
  the other; the input needs none that leads to it.

  Args:
    edges: which edges there are.
    n_layer: blocks.
    n_head: heads per block.

  Returns:
    The edges and the writers that are left.
  """
  names = writers(n_layer, n_head)
  # A reader belongs to the writer of its name; logits to none.
  owners = np.array(
    [
      names.index(reader.partition('<')[0])
      for reader in readers(n_layer, n_head)[:-1]
    ]
  )
  while True:
    is_read = np.zeros(len(names), bool)
    is_read[owners[edges[:, :-1].any(axis=0)]] = True
    is_read[0] = True
    nodes = is_read & edges.any(axis=1)
    left = edges & nodes[:, None] & np.append(nodes[owners], True)
    if (left == edges).all():
      return left, nodes
    edges = left


def of_circuit(circuit: Circuit) -> Importances:
  """What a circuit of channels amounts to between components.

  The importance of an edge is the sum, over residual channels, of the
  absolute weights with which the circuit writes to it times those with which
  it reads from it; the input writes with weight 1, and the logits read kept
  channels of `final_resid` with weight 1. It is 0 where the edge leads nowhere
  or comes from nowhere, see `connected`. Positive importances are the circuit.
  Those of a neuron and of a node are sums over its edges.
  """
  config = circuit.config
  sizes = config.n_layer, config.n_heads
  rows = {name: i for i, name in enumerate(writers(*sizes))}
  columns = {name: i for i, name in enumerate(readers(*sizes))}
  written = np.zeros((len(rows), config.d_model))
  read = np.zeros((len(columns), config.d_model))
  written[0] = 1
  read[-1, circuit.nodes.get('final_resid', slice(None))] = 1
  names, edges = list(circuit.sites), circuit.edges
  for source_site, source, target_site, target, weight in zip(
    *edges, strict=True
  ):
    source_name, target_name = names[source_site], names[target_site]
    layer, kind = target_name.split('.')[:2]
    if source_name.endswith('act_in'):
      part = f'm{layer}'
      if kind == 'attn':
        part = f'a{layer}.h{target // config.d_head}<{target_name[-1]}>'
      if source < config.d_model:  # not a channel of positions
        read[columns[part], source] += abs(weight)
    else:
      part = f'm{layer}'
      if kind == 'attn':
        part = f'a{layer}.h{source // config.d_head}'
      written[rows[part], target] += abs(weight)
  parallel = config.parallel_residual
  possible = possible_edges(*sizes, parallel)
  kept, nodes = connected((written @ read.T) * possible > 0, *sizes)
  scores = (written @ read.T) * kept
  neurons = written * (kept @ read)
  return Importances(
    *sizes,
    d_model=config.d_model,
    parallel=parallel,
    edge_scores=scores.astype(np.float32),
    edges_kept=kept,
    nodes_kept=nodes,
    node_scores=scores.sum(axis=1).astype(np.float32),
    neurons_kept=neurons > 0,
    neuron_scores=neurons.astype(np.float32),
  )
