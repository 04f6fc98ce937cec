"""The kernels of attention: their gradient, batches, and shares of devices.

A kernel sees one device and one batch. Rows and heads are independent: several
batches are one, and of an array that is split over devices each attends to its
own rows and heads.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from sparse_interp.ops.attention import attention_reference as reference
from sparse_interp.ops.cpu_kernels import proving

# Axes of operands and results: batch, time, heads, d_head.
_HEADS, _SEEN, _SINK, _LOGS = 'b t h d', 'b t', 'b h', 'b h t'


def _independent(
  kernel: Callable[..., Any], operands: list[str], results: list[str]
) -> Callable[..., Any]:
  """A kernel for any batch of batches, split over devices in any way."""
  split = custom_partitioning(kernel)

  def partition(mesh, arguments, results_wanted):
    del results_wanted
    batch, _, heads, _ = (*arguments[0].sharding.spec, *[None] * 4)[:4]
    names = {'b': batch, 'h': heads}

    def shardings(arrays):
      specs = [
        PartitionSpec(*(names.get(axis) for axis in axes.split()))
        for axes in arrays
      ]
      return tuple(NamedSharding(mesh, spec) for spec in specs)

    return mesh, kernel, shardings(results), shardings(operands)

  split.def_partition(
    partition=partition,
    sharding_rule=f'{", ".join(operands)} -> {", ".join(results)}',
    need_replication_factors=('t', 'd'),
  )
  joined = custom_vmap(split)

  @joined.def_vmap
  def _(axis_size, batched, *arrays):
    arrays = [
      x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
      for x, is_batched in zip(arrays, batched, strict=True)
    ]
    outputs = joined(*(x.reshape(-1, *x.shape[2:]) for x in arrays))
    outputs = (x.reshape(axis_size, -1, *x.shape[1:]) for x in outputs)
    return tuple(outputs), (True,) * len(results)

  return joined


def _load_forward():
  from sparse_interp.ops.attention import attention_cpu as cpu

  return cpu.attention_forward, cpu.forward


def _load_backward():
  from sparse_interp.ops.attention import attention_cpu as cpu

  return cpu.attention_backward, cpu.backward


def _operands():
  """Of `forward`: odd sizes, any last key, sinks that take nothing or all."""
  rng = np.random.default_rng(0)
  parts = rng.normal(size=(3, 2, 250, 5, 13)) * 2
  seen = rng.integers(1, 251, (2, 250))
  sink = rng.choice([-np.inf, -3, 2, 40], (2, 5))
  dtypes = (np.float32,) * 3 + (np.int32, np.float32)
  arrays = zip((*parts, seen, sink), dtypes, strict=True)
  return tuple(array.astype(dtype) for array, dtype in arrays)


def _forward_cases():
  q, k, *others = _operands()
  k[0, 200, 3] = np.nan  # a key that some queries of one head see
  return [(q, k, *others)]


def _backward_cases():
  operands = _operands()
  y, logs = (np.asarray(x) for x in jax.jit(reference.forward)(*operands))
  dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
  common = np.sum(y * dy, axis=-1).transpose(0, 2, 1)
  return [(*operands, logs, common, dy)]


FORWARD = proving.NativeKernel(
  'attention_forward', _load_forward, reference.forward, _forward_cases, 1e-4
)
BACKWARD = proving.NativeKernel(
  'attention_backward',
  _load_backward,
  reference.backward,
  _backward_cases,
  1e-4,
)

_forward = _independent(
  proving.either(FORWARD),
  [_HEADS, _HEADS, _HEADS, _SEEN, _SINK],
  [_HEADS, _LOGS],
)
_backward = _independent(
  proving.either(BACKWARD),
  [_HEADS, _HEADS, _HEADS, _SEEN, _SINK, _LOGS, _LOGS, _HEADS],
  [_HEADS, _HEADS, _HEADS],
)


@jax.custom_vjp
def _attend(q, k, v, seen, sink):
  return _forward(q, k, v, seen, sink)[0]


def _attend_forward(q, k, v, seen, sink):
  y, log_total = _forward(q, k, v, seen, sink)
  return y, (q, k, v, seen, sink, y, log_total)


def _attend_backward(kept, dy):
  q, k, v, seen, sink, y, log_total = kept
  common = jnp.sum(y * dy, axis=-1).transpose(0, 2, 1)
  gradients = _backward(q, k, v, seen, sink, log_total, common, dy)
  sunk = jnp.exp(sink[:, :, None] - log_total)
  return *gradients, None, -jnp.sum(sunk * common, axis=-1)


_attend.defvjp(_attend_forward, _attend_backward)


def attention(
  q: Float[Array, 'batch time heads d_head'],
  k: Float[Array, 'batch time heads d_head'],
  v: Float[Array, 'batch time heads d_head'],
  seen: Int[Array | np.ndarray, '#batch time'],
  sink: Float[Array, 'heads'] | None,
) -> Float[Array, 'batch time heads d_head']:
  """As `attention.attention`; every product and sum is in float32."""
  if q.size == 0:
    return v
  batch, time, heads, _ = q.shape
  # A kernel believes what it is told: beyond the keys lies foreign memory.
  seen = jnp.clip(jnp.asarray(seen, jnp.int32), 0, time)
  seen = jnp.broadcast_to(seen, (batch, time))
  sink = -jnp.inf if sink is None else sink.astype(jnp.float32)
  sink = jnp.broadcast_to(sink, (batch, heads))
  wide = (x.astype(jnp.float32) for x in (q, k, v))
  return _attend(*wide, seen, sink).astype(v.dtype)
