"""Takes a circuit out of its model: a small dense model with equal logits.

Kept rows and columns are gathered once and removed constants are folded into
biases, in float64. The result computes in float32 and equals the gated model
(in float32) to rounding, for every switch of the configuration.

What stays wide, because the gated model depends on it: all columns of a site
where AbsTopK acts and nodes are kept, and the whole residual stream if AbsTopK
acts on an act_in site with kept nodes, if the norm is LayerNorm, if positions
are added, if the residual stream is rectified, or if it has no nodes at the
end (`final_resid`).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sparse_interp.circuits.circuit import (
  Circuit,
  parts_of_circuit,
)
from sparse_interp.circuits.gates import EdgeIndex, nonzero_weights
from sparse_interp.circuits.small_model import (
  Block,
  Heads,
  Linear,
  Read,
  SmallModel,
  Unembed,
)
from sparse_interp.models import GPTConfig
from sparse_interp.models.config import RESIDUAL_SITES
from sparse_interp.models.gpt import sinusoidal_positions
from sparse_interp.models.layers import rotary_partner
from sparse_interp.models.params_hash import hash_params
from sparse_interp.models.sites import edge_name, read_site


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
    return shrink(circuit.config, params, circuit.nodes, circuit.means)
  index = nonzero_weights(circuit.config, params)
  edges = parts_of_circuit(circuit, index).edges
  return shrink(
    circuit.config, params, circuit.nodes, circuit.means, index, edges
  )


def shrink(
  config: GPTConfig,
  params: dict,
  nodes: Mapping[str, Int[np.ndarray, '_']],
  means: Mapping[str, Float[np.ndarray | Array, '_']],
  index: EdgeIndex | None = None,
  edges: Mapping[str, Bool[np.ndarray, '_']] | None = None,
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
  """
  kept = None
  if edges is not None:
    kept = {name: np.asarray(index[name])[:, edges[name]] for name in edges}
  return _Shrinker(config, params, nodes, means, kept).shrink()


def _floats(array: Any) -> Float[np.ndarray, '...']:
  return np.asarray(array, np.float64)


class _Shrinker:
  """The circuit, its model in float64, and what both imply for the stream."""

  def __init__(self, config, params, nodes, means, edges):
    self.config, self.params, self.edges = config, params, edges
    self.nodes = {s: np.asarray(n, int) for s, n in nodes.items()}
    self.means = {s: _floats(m) for s, m in means.items()}
    self.carried = self._carried()
    self.slot = np.full(config.d_model, -1)
    self.slot[self.carried] = np.arange(self.carried.size)
    # What removed nodes have added to channels that are not carried, now and
    # before the present layer.
    self.constant = self.layer_constant = np.zeros(config.d_model)

  def _carried(self) -> Int[np.ndarray, 'carried']:
    """Residual channels that the small model has to compute by position."""
    config, used, wide = self.config, [], False
    for site, kept in self.nodes.items():
      if site.endswith('act_in'):
        kind = site.split('.')[1]
        width = config.block_input_width
        sparse = config.kept_activations(f'{kind}_in', width) is not None
        wide = wide or (sparse and kept.size > 0)
        used.append(kept[kept < config.d_model])
      elif site.endswith('resid_delta') or site == 'final_resid':
        used.append(kept)
    if (
      wide
      or config.norm == 'layer'
      or config.position == 'added'
      or config.residual_activation == 'relu'
      or any(s in RESIDUAL_SITES for s in config.activation_sites)
      or 'final_resid' not in self.nodes
    ):
      return np.arange(config.d_model)
    return np.unique(np.concatenate(used))

  def get(self, *path: str) -> np.ndarray | None:
    """A parameter in float64, or None where the model has none."""
    node = self.params
    for key in path:
      if key not in node:
        return None
      node = node[key]
    return _floats(node)

  def shrink(self) -> SmallModel:
    added = None
    if self.config.position == 'added':
      added = _single(self.get('wpe', 'embedding')[:, self.carried])
    blocks = []
    for layer in range(self.config.n_layer):
      for kind in ('attn', 'mlp'):
        blocks.append(self.block(layer, kind))
    embedding = self.get('wte', 'embedding')[:, self.carried]
    return SmallModel(
      self.config, _single(embedding), added, tuple(blocks), self.unembed()
    )

  def block(self, layer: int, kind: str) -> Block:
    site, path = f'{layer}.{kind}', f'h_{layer}'
    if kind == 'attn':
      self.layer_constant = self.constant
    kept = self.nodes[f'{site}.resid_delta']
    mean = self.means[f'{site}.resid_delta'].copy()
    mean[kept] = 0
    block = Block(
      *[None] * 7,
      write=jnp.asarray(self.slot[kept]),
      constant=_single(mean[self.carried]),
    )
    if kept.size:
      read = self.read(layer, kind)
      if kind == 'mlp':
        bias = self.get(path, 'mlp', 'c_fc', 'bias')
        kernel = self.get(path, 'mlp', 'c_fc', 'kernel')
        act_in, post_act = f'{site}.act_in', f'{site}.post_act'
        neurons = self.linear(act_in, post_act, 'mlp_neuron', kernel, bias)
        out = self.linear(
          post_act,
          f'{site}.resid_delta',
          'mlp_out',
          self.get(path, 'mlp', 'c_proj', 'kernel'),
          self.get(path, 'mlp', 'c_proj', 'bias'),
        )
        block = block._replace(read=read, neurons=neurons, out=out)
      else:
        block = block._replace(read=read, **self.attention(layer))
    self.constant = self.constant + mean
    return block

  def read(self, layer: int, kind: str) -> Read | None:
    """Norm and kept channels; `self.constant` must be what came before."""
    config, norm = self.config, 1 if kind == 'attn' else 2
    kept = self.nodes[f'{layer}.{kind}.act_in']
    if not kept.size:
      return None
    sparse = config.kept_activations(f'{kind}_in', config.block_input_width)
    gain = self.get(f'h_{layer}', f'ln_{norm}', 'scale')
    bias = self.get(f'h_{layer}', f'ln_{norm}', 'bias')
    rest_square = None
    if self.carried.size < config.d_model and config.norm == 'rms':
      rest = np.delete(np.arange(config.d_model), self.carried)
      embedding = self.get('wte', 'embedding')[:, rest]
      constant = self.constant
      if config.parallel_residual:
        constant = self.layer_constant
      square = np.sum((embedding + constant[rest]) ** 2, axis=-1)
      rest_square = _single(square)
    residual = kept[kept < config.d_model]
    positions = self.positions(layer, norm)
    if sparse is not None:
      residual = np.arange(config.d_model)
    elif positions is not None:
      positions = positions[:, kept[kept >= config.d_model] - config.d_model]
    return Read(
      None if gain is None else _single(gain[self.carried]),
      None if bias is None else _single(bias[self.carried]),
      rest_square,
      jnp.asarray(self.slot[residual]),
      None if positions is None else _single(positions),
      None if sparse is None else jnp.asarray(kept),
      _single(self.means[f'{layer}.{kind}.act_in'][kept]),
    )

  def positions(self, layer: int, norm: int) -> np.ndarray | None:
    """Position channels as a block reads them, (context, d_position)."""
    config = self.config
    if not config.position.startswith('concat'):
      return None
    table = self.get('wpe', 'embedding')
    if config.position == 'concat_sinusoidal':
      length, width = config.context_length, config.d_position
      table = _floats(sinusoidal_positions(length, width))
    if config.norm == 'none':
      return table
    gain = self.get(f'h_{layer}', f'ln_p{norm}', 'scale')
    if config.norm == 'rms':
      square = np.mean(table**2, axis=-1, keepdims=True)
      return table / np.sqrt(square + config.norm_epsilon) * gain
    table = table - table.mean(axis=-1, keepdims=True)
    variance = np.mean(table**2, axis=-1, keepdims=True)
    bias = self.get(f'h_{layer}', f'ln_p{norm}', 'bias')
    table = table / np.sqrt(variance + config.norm_epsilon) * gain
    return table if bias is None else table + bias

  def linear(
    self,
    source: str,
    target: str,
    sparse_site: str,
    kernel: np.ndarray,
    bias: np.ndarray | None,
  ) -> Linear | None:
    """Kept rows; kept columns, or all where AbsTopK acts on the target."""
    kept = self.nodes[target]
    if not kept.size:
      return None
    bias = np.zeros(kernel.shape[1]) if bias is None else bias
    left = np.zeros_like(kernel)
    if self.edges is None:
      left[self.nodes[source]] = kernel[self.nodes[source]]
    else:
      rows, columns = self.edges[edge_name(source, target)]
      left[rows, columns] = kernel[rows, columns]
    mean = self.means[source]
    if self.edges is not None:
      mean = self.means[read_site(self.config, source)]
    bias = bias + mean @ (kernel - left)
    kernel = left[self.nodes[source]]
    mean = _single(self.means[target][kept])
    width = kernel.shape[1]
    if self.config.kept_activations(sparse_site, width) is None:
      return Linear(_single(kernel[:, kept]), _single(bias[kept]), None, mean)
    return Linear(_single(kernel), _single(bias), jnp.asarray(kept), mean)

  def attention(self, layer: int) -> dict[str, Any]:
    """q, k, v, heads and out of a block's attention."""
    config, site, path = self.config, f'{layer}.attn', f'h_{layer}'
    kernel = self.get(path, 'attn', 'c_attn', 'kernel')
    bias = self.get(path, 'attn', 'c_attn', 'bias')
    parts = {}
    for i, name in enumerate('qkv'):
      columns = slice(i * config.d_attn, (i + 1) * config.d_attn)
      parts[name] = self.linear(
        f'{site}.act_in',
        f'{site}.{name}',
        f'attn_{name}',
        kernel[:, columns],
        None if bias is None else bias[columns],
      )
    project = self.get(path, 'attn', 'c_proj', 'kernel')
    bias = self.get(path, 'attn', 'c_proj', 'bias')
    bias = np.zeros(config.d_model) if bias is None else bias
    target = f'{site}.resid_delta'
    out = self.linear(f'{site}.v', target, 'attn_out', project, bias)
    total = None
    if config.sink and self.edges is None:
      # The constants of removed values go through the heads instead.
      removed = self.means[f'{site}.v'].copy()
      removed[self.nodes[f'{site}.v']] = 0
      by_head = (removed[:, None] * project).reshape(
        config.n_heads, config.d_head, -1
      )
      total = by_head.sum(axis=1)
      columns = slice(None) if out.kept is not None else self.nodes[target]
      out = out._replace(bias=_single(bias[columns]))
      total = total[:, columns]
    parts['heads'] = self.heads(layer, total)
    parts['out'] = out
    return parts

  def heads(self, layer: int, total: np.ndarray | None) -> Heads | None:
    """Patterns of heads with kept values (or, with a sink, any values)."""
    config, site = self.config, f'{layer}.attn'
    q, k, v = (self.nodes[f'{site}.{name}'] for name in 'qkv')
    active = np.unique(v // config.d_head)
    if total is not None:
      active = np.union1d(active, np.flatnonzero(np.any(total != 0, axis=1)))
    if not active.size:
      return None
    q_mean, k_mean = self.means[f'{site}.q'], self.means[f'{site}.k']
    in_active = np.isin(np.arange(config.d_attn) // config.d_head, active)
    # Rotated channels are never constant, whether kept or not.
    partner = rotary_partner(config)
    channel = np.arange(config.d_attn) % config.d_head
    turned = np.flatnonzero(partner[channel] != channel)
    slots = np.union1d(np.union1d(q, k), turned).astype(int)
    slots = slots[in_active[slots]]
    partners = slots - channel[slots] + partner[channel[slots]]
    products = q_mean * k_mean
    products[slots] = 0
    products = products.reshape(config.n_heads, config.d_head)
    sink = self.get(f'h_{layer}', 'attn', 'sink_logit')
    q_from, k_from = np.flatnonzero(in_active[q]), np.flatnonzero(in_active[k])
    return Heads(
      query=_single(q_mean[slots]),
      key=_single(k_mean[slots]),
      query_from=jnp.asarray(q_from),
      query_to=jnp.asarray(np.searchsorted(slots, q[q_from])),
      key_from=jnp.asarray(k_from),
      key_to=jnp.asarray(np.searchsorted(slots, k[k_from])),
      slot_of=_single(active[:, None] == slots // config.d_head),
      constant=_single(products.sum(axis=1)[active]),
      channel=jnp.asarray(channel[slots]),
      partner=jnp.asarray(np.searchsorted(slots, partners)),
      sink=None if sink is None else _single(sink[active]),
      value_head=jnp.asarray(np.searchsorted(active, v // config.d_head)),
      total_kernel=None if total is None else _single(total[active]),
    )

  def unembed(self) -> Unembed:
    config = self.config
    everything = np.arange(config.d_model)
    kept = self.nodes.get('final_resid', everything)
    gated = 'final_resid' in self.nodes
    rest = np.delete(everything, kept)
    constants = self.means['final_resid'][rest] if gated else np.zeros(0)
    gain = self.get('ln_f', 'scale')
    gain = np.ones(config.d_model) if gain is None else gain
    kernel = self.get('lm_head', 'kernel')
    if config.tied_unembed:
      kernel = self.get('wte', 'embedding').T
    bias = self.get('final_logits_bias')
    bias = np.zeros(kernel.shape[1]) if bias is None else bias
    norm_bias = self.get('ln_f', 'bias')
    if norm_bias is not None:
      bias = bias + norm_bias @ kernel
    average = constants.mean() if rest.size else 0.0
    bigrams = self.get('bigram_table')
    return Unembed(
      channels=jnp.asarray(self.slot[kept]),
      mean=_single(self.means['final_resid'][kept]) if gated else None,
      gain=_single(gain[kept]),
      rest_count=_single(rest.size),
      rest_mean=_single(average),
      rest_spread=_single(np.sum((constants - average) ** 2)),
      kernel=_single(kernel[kept]),
      rest_logits=_single((constants * gain[rest]) @ kernel[rest]),
      rest_gain=_single(gain[rest] @ kernel[rest]),
      bias=_single(bias),
      bigram_table=None if bigrams is None else _single(bigrams),
    )


def _single(array: Any) -> Float[Array, '...']:
  return jnp.asarray(np.asarray(array, np.float64).astype(np.float32))
