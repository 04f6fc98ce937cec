"""Circuits of ours for the published viewer: writes `viz_data.pt`.

Losses are written as that viewer reads them, twice the means of this package
where it halves them (see `released_circuit`). It draws, for each part of a
layer, the kept nodes by what the circuit loses without them and the weights
between them; for each node, windows of pretraining text at given shares of its
range, and its values on the prompts of the task.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.ablation import CONSTANT
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.task_loss import Pairs, make_pairs
from sparse_interp.interop.openai import openai_config
from sparse_interp.interop.torch_file import torch_file
from sparse_interp.models import GPT
from sparse_interp.models.sites import edge_matrices, node_sites
from sparse_interp.tasks.encoding import EncodedTask

_SHARES = (0.001, 0.01, 0.1, 0.5)
_SHOWN = 5  # windows at each share; the viewer shows no more
_BATCH = 32

Windows = Int[np.ndarray, 'windows time']


def write(
  path: str | os.PathLike,
  circuit: Circuit,
  params: dict,
  task: EncodedTask,
  windows: Windows,
  tokenizer_name: str = 'tinypython_2k',
) -> None:
  """Writes a circuit of nodes for the published viewer.

  Takes one evaluation of `task` for every kept node.

  Args:
    path: of the file, `<model>/<task>/<sweep>/<k>/viz_data.pt` for the viewer.
    circuit: of nodes, under an ablation by constants.
    params: of its model.
    task: pairs that are stored, and on which losses are measured; the viewer
      was made for 16.
    windows: pretraining text as tokens.
    tokenizer_name: with which the viewer prints tokens.

  Raises:
    OSError: the file cannot be written.
    ValueError: the circuit has gates on edges or another ablation, or the
      configuration of its model has no form in theirs.
  """
  kind = circuit.ablation.get('kind')
  if circuit.gates != 'nodes' or kind not in CONSTANT:
    raise ValueError(
      'circuit must have gates on nodes and an ablation by constants '
      f'({", ".join(CONSTANT)}), got {circuit.gates} and {kind}; prune with '
      'such gates and such an ablation for the published viewer.'
    )
  configuration = openai_config.to_released(circuit.config, tokenizer_name)
  model = gated_model.make(circuit.config, params, circuit.means, kind)
  nodes = _nodes(circuit)
  pairs = make_pairs(task)
  losses = _losses(circuit, model, nodes, pairs)
  torch_file.write(
    path,
    {
      'circuit_data': {
        site: kept.astype(np.int64) for site, kept in nodes.items()
      },
      'samples': _samples(model, nodes, windows),
      'importances': {
        **losses,
        'pair_data': _pair_data(circuit, params, nodes),
        'pair_data_connections': [],
        'task_samples': _task_samples(model, nodes, _gates(nodes, model), task),
        'beeg_model_config': configuration,
      },
      'all_loss': [
        (int(step), 2 * float(loss))
        for step, loss in zip(
          circuit.history.get('step', ()),
          circuit.history.get('task_loss', ()),
          strict=True,
        )
      ],
      'num_total_nodes': sum(node_sites(circuit.config).values()),
      'prune_config': dict(circuit.prune_config),
    },
  )


def _nodes(circuit) -> dict[str, Int[np.ndarray, '_']]:
  """Kept nodes of every site; those without gates are all kept."""
  return {
    site: np.sort(np.asarray(circuit.nodes.get(site, np.arange(width)), int))
    for site, width in node_sites(circuit.config).items()
  }


def _gates(nodes: Mapping[str, Any], model: GatedModel) -> dict[str, Array]:
  return {
    site: jnp.zeros(width).at[nodes[site]].set(1.0)
    for site, width in node_sites(model.config).items()
    if site in model.values
  }


def _losses(circuit, model, nodes, pairs: Pairs) -> dict[str, Any]:
  def loss(gates, calibrated=True):
    outputs = gated_model.all_outputs(model, gates, pairs)
    fitted = (circuit.scale, circuit.shift) if calibrated else (1.0, 0.0)
    return float(jnp.mean(pairs.losses(outputs, *fitted)))

  gates = _gates(nodes, model)
  without_node = {
    site: [
      2 * loss({**gates, site: gates[site].at[channel].set(0.0)})
      for channel in kept
    ]
    if site in gates
    else [2 * loss(gates)] * len(kept)
    for site, kept in nodes.items()
  }
  without_site = {
    site: loss({**gates, site: jnp.zeros_like(gate)})
    for site, gate in gates.items()
  }
  without_layer = {}
  for layer in range(circuit.config.n_layer):
    for part in ('attn', 'mlp'):
      name = f'{layer}.{part}'
      removed = {
        site: jnp.zeros_like(gate) if site.startswith(f'{name}.') else gate
        for site, gate in gates.items()
      }
      without_layer[name] = loss(removed)
  return {
    'loss': 2 * loss({}, calibrated=False),
    'interv_loss': 2 * loss(gates),
    'ch_interv_losses': without_node,
    # The viewer takes these as means, unlike all others.
    'layer_interv_losses': without_layer,
    'loc_interv_losses': {site: 2 * one for site, one in without_site.items()},
  }


def _pair_data(circuit, params, nodes) -> list:
  """Weights between kept nodes: what the viewer draws as edges."""
  pairs = []
  for matrix in edge_matrices(circuit.config):
    source, target = nodes[matrix.source], nodes[matrix.target]
    block = np.asarray(matrix.block(params), np.float32)
    pairs.append(
      [
        block[np.ix_(source, target)],
        source.tolist(),
        target.tolist(),
        (matrix.source, matrix.target),
      ]
    )
  return pairs


@jax.jit
def _kept_values(
  params: dict, model: GatedModel, tokens: Array, nodes: dict, gates: dict
) -> dict[str, Array]:
  """Values of kept nodes by site: (batch, time, kept)."""
  edits = {
    site: lambda x, gate=gate, value=model.values[site]: (
      gate * x + (1 - gate) * value
    )
    for site, gate in gates.items()
  }
  _, seen = GPT(model.config).apply({'params': params}, tokens, edits=edits)
  return {site: seen[site][..., kept] for site, kept in nodes.items()}


def _values(model, nodes, tokens, gates=None) -> dict[str, Any]:
  parts = []
  for start in range(0, len(tokens), _BATCH):
    batch = jnp.asarray(tokens[start : start + _BATCH])
    seen = _kept_values(model.params, model, batch, dict(nodes), gates or {})
    parts.append(jax.tree.map(np.asarray, seen))
  return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def _task_samples(model, nodes, gates, task) -> tuple[Any, dict[str, Any]]:
  """Prompts, those of side a first, and values in the circuit."""
  longest = int(task.last.max()) + 1
  tokens = np.concatenate([task.tokens[:, 0], task.tokens[:, 1]])[:, :longest]
  values = _values(model, nodes, tokens, gates)
  return tokens.astype(np.int64), {
    site: {
      int(channel): values[site][..., i].astype(np.float32)
      for i, channel in enumerate(kept)
    }
    for site, kept in nodes.items()
  }


def _samples(model, nodes, windows: Windows) -> dict[str, Any]:
  values = _values(model, nodes, windows)
  tokens = np.asarray(windows, np.int64)
  return {
    site: {
      int(channel): _shares(values[site][..., i].astype(np.float32), tokens)
      for i, channel in enumerate(kept)
    }
    for site, kept in nodes.items()
  }


def _shares(
  values: Float[np.ndarray, 'windows time'], tokens: Windows
) -> dict[float, list]:
  """Places at a share of all from the least and from the largest value."""
  order = np.argsort(values.reshape(-1), kind='stable')

  def entries(ranked, share):
    start = int(share * (len(ranked) - 1))
    chosen = ranked[start : start + _SHOWN]
    rows, positions = np.divmod(chosen, values.shape[1])
    return [
      (tokens[row], values[row], int(position))
      for row, position in zip(rows, positions, strict=True)
    ]

  return {
    share: [entries(order, share), entries(order[::-1], share)]
    for share in _SHARES
  }
