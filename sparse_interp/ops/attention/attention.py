"""Softmax attention with a sink, a few queries at a time.

Chooses who computes: the kernels of `attention_kernels`, or what stands here in
plain jax. Its gradient is written out: it sums over queries with the channels
of keys and values before their positions, which XLA (CPU) does several times
faster than in the order that differentiation arrives at, heads being narrow.

Source: section A.1 of arXiv 2511.13653 for the sink; the gradient of softmax is
arranged as by Dao et al., arXiv 2205.14135, section 3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparse_interp.ops import machine
from sparse_interp.ops.attention import attention_kernels

IMPLEMENTATIONS = ('reference', 'cpu')

# Queries that attend at a time: their scores stay in caches, and causality then
# saves up to half of the work.
_QUERIES = 64


def attention(
  q: Float[Array, 'batch time heads d_head'],
  k: Float[Array, 'batch time heads d_head'],
  v: Float[Array, 'batch time heads d_head'],
  seen: Int[Array | np.ndarray, '#batch time'],
  sink: Float[Array, 'heads'] | None,
  implementation: str = 'auto',
) -> Float[Array, 'batch time heads d_head']:
  """Attends to the first keys, scale 1/sqrt(d_head), optional sink.

  The sink adds exp(sink) to the denominator of every softmax of its head: an
  extra slot with key and value zero and that logit, unscaled (A.1).

  Args:
    q: queries, float32 or narrower; softmax and sums are float32.
    k: keys.
    v: values.
    seen: how many keys, from the first on, a query sees; at least one. A numpy
      array is known before the model runs: in plain jax, queries then skip the
      keys after the last that one of their group sees.
    sink: logits of the extra slot; None for none.
    implementation: 'auto' or one of IMPLEMENTATIONS; see `machine`.

  Raises:
    ValueError: there is no such implementation.
  """
  if machine.choose(implementation, IMPLEMENTATIONS) == 'cpu':
    return attention_kernels.attention(q, k, v, seen, sink)
  return _attention(q, k, v, seen, sink)


def visible_keys(
  seen: Int[Array | np.ndarray, '*batch'], keys: int
) -> Bool[Array | np.ndarray, '*batch keys']:
  """Which keys a query sees; a numpy array if `seen` is one."""
  return np.arange(keys) < seen[..., None]


def _attention(q, k, v, seen, sink):
  """Attention in plain jax, some queries after the others."""
  time = q.shape[1]
  q = q.transpose(0, 2, 1, 3)
  k, v = lax.optimization_barrier(
    tuple(part.transpose(0, 2, 3, 1) for part in (k, v))
  )
  mixed = []
  for start in range(0, time, _QUERIES):
    group = slice(start, start + _QUERIES)
    known = isinstance(seen, np.ndarray)
    stop = int(seen[:, group].max()) if known else time
    visible = visible_keys(seen[:, None, group], stop)
    keys, values = k[..., :stop], v[..., :stop]
    mixed.append(_attend(q[:, :, group], keys, values, visible, sink))
  return jnp.concatenate(mixed, axis=2).transpose(0, 2, 1, 3)


def _product(equation: str, x: Array, y: Array) -> Float[Array, '...']:
  """Sums in float32 of products in the dtype of what the model computes in."""
  return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _attend(q, k, v, visible, sink):
  """Attention of some q (batch, heads, queries, d) to k, v (.., d, keys)."""
  return _attend_forward(q, k, v, visible, sink)[0]


def _attend_forward(q, k, v, visible, sink):
  scores = _product('bhqd,bhdk->bhqk', q, k) / np.sqrt(q.shape[3])
  scores = jnp.where(visible, scores, -jnp.inf)
  highest = jnp.max(scores, axis=-1, keepdims=True)
  if sink is not None:
    sink = sink[:, None, None]
    highest = jnp.maximum(highest, sink)
  weights = jnp.exp(scores - highest)
  total = jnp.sum(weights, axis=-1, keepdims=True)
  sunk = None if sink is None else jnp.exp(sink - highest)
  if sink is not None:
    total = total + sunk
  mixed = _product('bhqk,bhdk->bhqd', weights.astype(v.dtype), v) / total
  return mixed.astype(v.dtype), (q, k, v, weights, sunk, total, mixed)


def _attend_backward(kept, gradient):
  q, k, v, weights, sunk, total, mixed = kept
  dtype = v.dtype
  # Divided once for all: what follows has `weights` without their total.
  gradient = gradient / total
  common = jnp.sum(gradient * mixed, axis=-1, keepdims=True)
  gradient = gradient.astype(dtype)
  dv = _product('bhqd,bhqk->bhdk', gradient, weights.astype(dtype))
  pull = _product('bhqd,bhdk->bhqk', gradient, v) - common
  dscores = (weights * pull / np.sqrt(q.shape[3])).astype(dtype)
  dq = _product('bhqk,bhdk->bhqd', dscores, k)
  dk = _product('bhqd,bhqk->bhdk', q, dscores)
  dsink = None if sunk is None else -jnp.sum(sunk * common, axis=(0, 2, 3))
  # Kept from being folded into the products, in whose order they would run.
  dk, dv = lax.optimization_barrier((dk, dv))
  return dq.astype(dtype), dk.astype(dtype), dv.astype(dtype), None, dsink


_attend.defvjp(_attend_forward, _attend_backward)
