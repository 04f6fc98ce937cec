"""What the kernels of attention compute, in plain jax.

It takes and returns what the kernels do, so that they can be compared with it
one by one, and it can take the place of each of them. Some queries attend after
the others: scores of all of them would not fit the memory of long sequences.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

_QUERIES = 64  # that attend at a time


def _by_head(x):
  return x.transpose(0, 2, 1, 3)


def _groups(time):
  return [slice(i, i + _QUERIES) for i in range(0, time, _QUERIES)]


def _scores(q, k, seen, group):
  """Scores of a group of queries; -inf where a key is not seen."""
  scores = jnp.einsum('bhqd,bkhd->bhqk', q[:, :, group], k)
  visible = jnp.arange(k.shape[1]) < seen[:, None, group, None]
  return jnp.where(visible, scores / np.sqrt(q.shape[3]), -jnp.inf)


def forward(
  q: Float[Array, 'batch time heads d_head'],
  k: Float[Array, 'batch time heads d_head'],
  v: Float[Array, 'batch time heads d_head'],
  seen: Int32[Array, 'batch time'],
  sink: Float[Array, 'batch heads'],
) -> tuple[Float[Array, '...'], ...]:
  """What heads read, and the log of the sum of every softmax.

  Args:
    q: queries, float32 as all others.
    k: keys.
    v: values.
    seen: how many keys, from the first on, a query sees; at least one.
    sink: logits of the extra slot; -inf for none.

  Returns:
    y, like q; and the logs, (batch, heads, time).
  """
  q, sink = _by_head(q), sink[:, :, None, None]
  mixed, logs = [], []
  for group in _groups(q.shape[2]):
    scores = _scores(q, k, seen, group)
    highest = jnp.maximum(jnp.max(scores, axis=-1, keepdims=True), sink)
    weights = jnp.exp(scores - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(sink - highest)
    mixed.append(jnp.einsum('bhqk,bkhd->bhqd', weights, v) / total)
    logs.append((highest + jnp.log(total))[..., 0])
  return _by_head(jnp.concatenate(mixed, 2)), jnp.concatenate(logs, 2)


def backward(
  q: Float[Array, 'batch time heads d_head'],
  k: Float[Array, 'batch time heads d_head'],
  v: Float[Array, 'batch time heads d_head'],
  seen: Int32[Array, 'batch time'],
  sink: Float[Array, 'batch heads'],
  log_total: Float[Array, 'batch heads time'],
  common: Float[Array, 'batch heads time'],
  dy: Float[Array, 'batch time heads d_head'],
) -> tuple[Float[Array, 'batch time heads d_head'], ...]:
  """Gradients of q, k and v from dy; `common` sums dy * y over channels."""
  del sink  # which the logs hold
  q, dy = _by_head(q), _by_head(dy)
  dq, dk, dv = [], jnp.zeros_like(k), jnp.zeros_like(v)
  for group in _groups(q.shape[2]):
    scores = _scores(q, k, seen, group)
    weights = jnp.exp(scores - log_total[:, :, group, None])
    pull = jnp.einsum('bhqd,bkhd->bhqk', dy[:, :, group], v)
    pull = weights * (pull - common[:, :, group, None]) / np.sqrt(q.shape[3])
    dq.append(jnp.einsum('bhqk,bkhd->bhqd', pull, k))
    dk += jnp.einsum('bhqk,bhqd->bkhd', pull, q[:, :, group])
    dv += jnp.einsum('bhqk,bhqd->bkhd', weights, dy[:, :, group])
  return _by_head(jnp.concatenate(dq, 2)), dk, dv
