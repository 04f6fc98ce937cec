"""Attention of a small model: the heads that matter and what they score."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits.extracted.cutting import Cut, single
from sparse_interp.circuits.extracted.small_arrays import Heads
from sparse_interp.models.layers import rotary_partner


def attention(cut: Cut, layer: int) -> dict[str, Any]:
  """q, k, v, heads and out of a block's attention."""
  config, site, path = cut.config, f'{layer}.attn', f'h_{layer}'
  kernel = cut.get(path, 'attn', 'c_attn', 'kernel')
  bias = cut.get(path, 'attn', 'c_attn', 'bias')
  parts = {}
  for i, name in enumerate('qkv'):
    columns = slice(i * config.d_attn, (i + 1) * config.d_attn)
    parts[name] = cut.linear(
      f'{site}.act_in',
      f'{site}.{name}',
      f'attn_{name}',
      kernel[:, columns],
      None if bias is None else bias[columns],
    )
  project = cut.get(path, 'attn', 'c_proj', 'kernel')
  bias = cut.get(path, 'attn', 'c_proj', 'bias')
  bias = np.zeros(config.d_model) if bias is None else bias
  target = f'{site}.resid_delta'
  out = cut.linear(f'{site}.v', target, 'attn_out', project, bias)
  total = None
  if config.sink and cut.edges is None and not cut.closed:
    # The constants of removed values go through the heads instead.
    removed = cut.means[f'{site}.v'].copy()
    removed[cut.nodes[f'{site}.v']] = 0
    by_head = (removed[:, None] * project).reshape(
      config.n_heads, config.d_head, -1
    )
    total = by_head.sum(axis=1)
    columns = slice(None) if out.kept is not None else cut.nodes[target]
    out = out._replace(bias=single(bias[columns]))
    total = total[:, columns]
  parts['heads'] = _heads(cut, layer, total)
  parts['out'] = out
  return parts


def _heads(cut: Cut, layer: int, total: np.ndarray | None) -> Heads | None:
  """Patterns of heads with kept values (or, with a sink, any values)."""
  config, site = cut.config, f'{layer}.attn'
  q, k, v = (cut.nodes[f'{site}.{name}'] for name in 'qkv')
  active = np.unique(v // config.d_head)
  if total is not None:
    active = np.union1d(active, np.flatnonzero(np.any(total != 0, axis=1)))
  if not active.size:
    return None
  q_mean, k_mean = cut.means[f'{site}.q'], cut.means[f'{site}.k']
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
  sink = cut.get(f'h_{layer}', 'attn', 'sink_logit')
  q_from, k_from = np.flatnonzero(in_active[q]), np.flatnonzero(in_active[k])
  return Heads(
    query=single(q_mean[slots]),
    key=single(k_mean[slots]),
    query_from=jnp.asarray(q_from),
    query_to=jnp.asarray(np.searchsorted(slots, q[q_from])),
    key_from=jnp.asarray(k_from),
    key_to=jnp.asarray(np.searchsorted(slots, k[k_from])),
    slot_of=single(active[:, None] == slots // config.d_head),
    constant=single(products.sum(axis=1)[active]),
    channel=jnp.asarray(channel[slots]),
    partner=jnp.asarray(np.searchsorted(slots, partners)),
    sink=None if sink is None else single(sink[active]),
    value_head=jnp.asarray(np.searchsorted(active, v // config.d_head)),
    total_kernel=None if total is None else single(total[active]),
  )
