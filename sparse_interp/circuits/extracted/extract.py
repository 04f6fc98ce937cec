"""Takes a circuit out of its model: a small dense model with equal logits.

Kept rows and columns are gathered once and removed constants are folded into
biases, in float64. The result computes in float32 and equals the gated model
(in float32) to rounding, for every switch of the configuration.

What stays wide, because the gated model depends on it: all columns of a site
where AbsTopK acts and nodes are kept, and the whole residual stream if AbsTopK
acts on an act_in site with kept nodes (neither in a closed circuit), if the
norm is LayerNorm, if positions are added, if the residual stream is rectified,
or if it has no nodes at the end (`final_resid`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sparse_interp.circuits.circuit import Circuit, parts_of_circuit
from sparse_interp.circuits.extracted.attention import attention
from sparse_interp.circuits.extracted.cutting import Cut, floats, single
from sparse_interp.circuits.extracted.small_arrays import (
  Block,
  SmallModel,
  Unembed,
)
from sparse_interp.circuits.extracted.stream import Stream, read, stream_of
from sparse_interp.circuits.gating.gates import EdgeIndex, nonzero_weights
from sparse_interp.models import GPTConfig
from sparse_interp.models.params_hash import hash_params


def extract_circuit(circuit: Circuit, params: dict) -> SmallModel:
  """Turns a circuit into a small dense model.

  Args:
    circuit: the circuit.
    params: parameters of the model it was found in.

  Returns:
    The model; run it with `small_model.apply`. Calibration is not part of
    it: it acts on answer logit differences, not on logits.

  Raises:
    ValueError: if the parameters are not those the circuit was found in.
  """
  expected = circuit.provenance.get('params_hash')
  if expected is not None and expected != hash_params(params):
    raise ValueError(
      'params must be those of the model the circuit was found in '
      f'(params_hash {expected}), got {hash_params(params)}; load that '
      'checkpoint.'
    )
  if circuit.gates == 'nodes':
    return shrink(
      circuit.config,
      params,
      circuit.nodes,
      circuit.means,
      closed=circuit.closed,
    )
  index = nonzero_weights(circuit.config, params)
  edges = parts_of_circuit(circuit, index).edges
  return shrink(
    circuit.config,
    params,
    circuit.nodes,
    circuit.means,
    index,
    edges,
    circuit.closed,
  )


def shrink(
  config: GPTConfig,
  params: dict,
  nodes: Mapping[str, Int[np.ndarray, '_']],
  means: Mapping[str, Float[np.ndarray | Array, '_']],
  index: EdgeIndex | None = None,
  edges: Mapping[str, Bool[np.ndarray, '_']] | None = None,
  closed: bool = False,
) -> SmallModel:
  """Same from the parts of a circuit.

  Args:
    config: the model.
    params: its parameters.
    nodes: {site: sorted kept channels} for every node site; `final_resid`
      may be absent: then all of its channels stay.
    means: {site: values that removed nodes take}.
    index: {matrix name: rows and columns of nonzero weights}, with `edges`.
    edges: {matrix name: which of them are kept}, for circuits with gates on
      edges; None keeps every weight that kept nodes read.
    closed: whether what is removed is constant wherever it is read, see
      `gates.apply_gates`.
  """
  kept = None
  if edges is not None:
    kept = {name: np.asarray(index[name])[:, edges[name]] for name in edges}
  cut = Cut(
    config,
    params,
    {site: np.asarray(channels, int) for site, channels in nodes.items()},
    {site: floats(mean) for site, mean in means.items()},
    kept,
    closed,
  )
  stream = stream_of(cut)
  added = None
  if config.position == 'added':
    added = single(cut.get('wpe', 'embedding')[:, stream.carried])
  return SmallModel(
    config,
    single(cut.get('wte', 'embedding')[:, stream.carried]),
    added,
    tuple(_blocks(cut, stream)),
    _unembed(cut, stream.slot),
    closed,
  )


def _blocks(cut: Cut, stream: Stream) -> Iterator[Block]:
  """Attention and MLP of each layer, in order."""
  # What removed nodes have added to channels that are not carried.
  constant = np.zeros(cut.config.d_model)
  for layer in range(cut.config.n_layer):
    before = constant
    for kind in ('attn', 'mlp'):
      site = f'{layer}.{kind}'
      kept = cut.nodes[f'{site}.resid_delta']
      mean = cut.means[f'{site}.resid_delta'].copy()
      mean[kept] = 0
      parts = {}
      if kept.size:
        seen = before if cut.config.parallel_residual else constant
        parts = attention(cut, layer) if kind == 'attn' else _mlp(cut, layer)
        parts['read'] = read(cut, stream, seen, layer, kind)
      block = Block(
        *[None] * 7,
        write=jnp.asarray(stream.slot[kept]),
        constant=single(mean[stream.carried]),
      )
      yield block._replace(**parts)
      constant = constant + mean


def _mlp(cut: Cut, layer: int) -> dict[str, Any]:
  """neurons and out of a block's MLP."""
  site, path = f'{layer}.mlp', (f'h_{layer}', 'mlp')
  neurons = cut.linear(
    f'{site}.act_in',
    f'{site}.post_act',
    'mlp_neuron',
    cut.get(*path, 'c_fc', 'kernel'),
    cut.get(*path, 'c_fc', 'bias'),
  )
  out = cut.linear(
    f'{site}.post_act',
    f'{site}.resid_delta',
    'mlp_out',
    cut.get(*path, 'c_proj', 'kernel'),
    cut.get(*path, 'c_proj', 'bias'),
  )
  return {'neurons': neurons, 'out': out}


def _unembed(cut: Cut, slot: Int[np.ndarray, 'd_model']) -> Unembed:
  """Last norm and unembedding; what is removed there becomes constant."""
  config = cut.config
  everything = np.arange(config.d_model)
  kept = cut.nodes.get('final_resid', everything)
  gated = 'final_resid' in cut.nodes
  rest = np.delete(everything, kept)
  constants = cut.means['final_resid'][rest] if gated else np.zeros(0)
  gain = cut.get('ln_f', 'scale')
  gain = np.ones(config.d_model) if gain is None else gain
  kernel = cut.get('lm_head', 'kernel')
  if config.tied_unembed:
    kernel = cut.get('wte', 'embedding').T
  bias = cut.get('final_logits_bias')
  bias = np.zeros(kernel.shape[1]) if bias is None else bias
  norm_bias = cut.get('ln_f', 'bias')
  if norm_bias is not None:
    bias = bias + norm_bias @ kernel
  average = constants.mean() if rest.size else 0.0
  bigrams = cut.get('bigram_table')
  return Unembed(
    channels=jnp.asarray(slot[kept]),
    mean=single(cut.means['final_resid'][kept]) if gated else None,
    gain=single(gain[kept]),
    rest_count=single(rest.size),
    rest_mean=single(average),
    rest_spread=single(np.sum((constants - average) ** 2)),
    kernel=single(kernel[kept]),
    rest_logits=single((constants * gain[rest]) @ kernel[rest]),
    rest_gain=single(gain[rest] @ kernel[rest]),
    bias=single(bias),
    bigram_table=None if bigrams is None else single(bigrams),
  )
