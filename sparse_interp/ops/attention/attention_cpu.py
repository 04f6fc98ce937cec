"""Attention on a CPU by kernels of our own, a head at a time.

A head is narrow: its queries, keys and values fit the first caches, and scores
are never written to memory. The gradient computes them again from the sum of
every softmax, as by Dao et al., arXiv 2205.14135.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from sparse_interp.ops.cpu_kernels import native
from sparse_interp.ops.cpu_kernels.native_dense import (
  COLUMNS,
  add_product,
  exponentials,
  largest,
)
from sparse_interp.ops.cpu_kernels.native_vectors import transpose

# Queries that attend at a time; their scores of 256 keys are 16 KiB. A multiple
# of COLUMNS, to which the time of a head is padded.
_QUERIES = COLUMNS

_ONE = np.float32(1)


class _Head(NamedTuple):
  """Sizes of what is computed at a time, and where it lies in q, k, v and y."""

  time: int
  width: int
  step: int  # from one time to the next
  columns: int  # width, padded
  keys: int  # time, padded


@native.machine_code
def _padded(length):
  return (length + COLUMNS - 1) // COLUMNS * COLUMNS


@native.machine_code
def _sizes(state):
  """Number of heads of all rows, of one row, and sizes of a head."""
  time = native.size(state, 3, 1)
  rows, heads = native.size(state, 4, 0), native.size(state, 4, 1)
  step = native.size(state, 0, 1) // time
  width = step // heads
  head = _Head(time, width, step, _padded(width), _padded(time))
  return rows * heads, heads, head


@native.machine_code
def _parts(state, buffer):
  """Three operands or results, one after the other."""
  return (
    native.floats(state, buffer),
    native.floats(state, buffer + 1),
    native.floats(state, buffer + 2),
  )


@native.machine_code
def _place(head, n, heads):
  """Where the n-th head of all rows begins."""
  return n // heads * head.time * head.step + n % heads * head.width


@native.machine_code
def _rows(x, n, first, head):
  """What x (.., time) holds for the queries that attend at a time."""
  last = min(first + _QUERIES, head.time)
  return x[n * head.time + first : n * head.time + last]


@native.machine_code
def _read(x, at, head, scale, target):
  """Copies a head to (keys, columns), times `scale`."""
  for t in range(head.time):
    own, place = at + t * head.step, t * head.columns
    row, into = x[own : own + head.width], target[place : place + head.width]
    for c in range(head.width):
      into[c] = scale * row[c]


@native.machine_code
def _write(source, count, head, scale, y, at):
  """Copies `count` times of a head, each times its scale."""
  for t in range(count):
    own, place = at + t * head.step, t * head.columns
    row, into = source[place : place + head.width], y[own : own + head.width]
    for c in range(head.width):
      into[c] = scale[t] * row[c]


@native.machine_code
def _read_by_channel(x, at, head, target):
  """Copies a head to (columns, keys)."""
  transpose(x, at, head.step, head.time, head.width, target, 0, head.keys)


@native.machine_code
def _by_key(rows, first, by_channel, stop, head, target):
  """target (_QUERIES, keys) = rows (keys, columns) times by_channel.

  Rows from `first` on; by_channel (columns, keys) up to the key `stop`.
  """
  for i in range(_QUERIES):
    target[i * head.keys : i * head.keys + stop] = 0
  own = (rows, first * head.columns, head.columns, 1)
  into = (target, 0, head.keys)
  channels = (by_channel, 0, head.keys)
  add_product(_QUERIES, stop, head.columns, own, channels, into)


@native.machine_code
def _by_query(weights, rows, stop, head, target):
  """target (_QUERIES, columns) = weights (_QUERIES, keys) times rows."""
  target[:] = 0
  own, into = (weights, 0, head.keys, 1), (target, 0, head.columns)
  add_product(_QUERIES, head.columns, stop, own, (rows, 0, head.columns), into)


@native.machine_code
def _add_by_key(weights, count, rows, first, stop, head, target):
  """target (keys, columns) += weights (count, keys), transposed, times rows.

  Rows from `first` on.
  """
  own, into = (weights, 0, 1, head.keys), (target, 0, head.columns)
  read = (rows, first * head.columns, head.columns)
  add_product(stop, head.columns, count, own, read, into)


@native.machine_code
def _score(q, k, first, seen, head, scores):
  """Scores of some queries, -inf where not seen; returns up to which key.

  Args:
    q: queries, scaled, (keys, columns).
    k: keys by channel, (columns, keys).
    first: the first query.
    seen: how many keys each of the queries sees.
    head: sizes.
    scores: (_QUERIES, keys), written up to what is returned.
  """
  most = 0
  for number in seen:
    most = max(most, number)
  stop = _padded(most)
  _by_key(q, first, k, stop, head, scores)
  for i in range(seen.size):
    scores[i * head.keys + seen[i] : i * head.keys + stop] = -np.inf
  return stop


@native.machine_code
def _softmax(scores, seen, stop, head, sink, log_total, mixed_share):
  """Turns scores into weights whose sum, with the sink, is 1 / mixed_share."""
  for i in range(seen.size):
    row = i * head.keys
    highest = max(largest(scores, row, stop), sink)
    total = exponentials(scores, row, stop, highest)
    total += np.float32(math.exp(sink - highest))
    log_total[i] = highest + np.float32(math.log(total))
    mixed_share[i] = _ONE / total


@native.machine_code
def attention_forward(state, part, parts):
  """q, k, v, seen, sink -> y, log_total; threads share the heads."""
  q, k, v = _parts(state, 0)
  seen, sink = native.ints(state, 3), native.floats(state, 4)
  y, log_total = native.floats(state, 5), native.floats(state, 6)
  count, heads, head = _sizes(state)
  columns, keys = head.columns, head.keys
  queries = np.zeros(keys * columns, np.float32)
  values = np.zeros(keys * columns, np.float32)
  k_by_channel = np.zeros(columns * keys, np.float32)
  scores = np.zeros(_QUERIES * keys, np.float32)
  mixed = np.zeros(_QUERIES * columns, np.float32)
  share = np.zeros(_QUERIES, np.float32)
  scale = np.float32(1 / math.sqrt(head.width))
  for n in range(count * part // parts, count * (part + 1) // parts):
    at = _place(head, n, heads)
    _read(q, at, head, scale, queries)
    _read(v, at, head, _ONE, values)
    _read_by_channel(k, at, head, k_by_channel)
    for first in range(0, head.time, _QUERIES):
      own = _rows(seen, n // heads, first, head)
      stop = _score(queries, k_by_channel, first, own, head, scores)
      logs = _rows(log_total, n, first, head)
      _softmax(scores, own, stop, head, sink[n], logs, share)
      _by_query(scores, values, stop, head, mixed)
      _write(mixed, own.size, head, share, y, at + first * head.step)


@native.machine_code
def _pull_scores(weights, pull, seen, stop, head, log_total, common):
  """Makes weights of scores, and of the pull at them that at the scores."""
  for i in range(seen.size):
    row = i * head.keys
    exponentials(weights, row, stop, log_total[i])
    held, pulled = weights[row : row + stop], pull[row : row + stop]
    for j in range(stop):
      pulled[j] = held[j] * (pulled[j] - common[i])


@native.machine_code
def attention_backward(state, part, parts):
  """The operands of `backward` -> dq, dk, dv; threads share the heads."""
  q, k, v = _parts(state, 0)
  seen, log_total = native.ints(state, 3), native.floats(state, 5)
  common, dy = native.floats(state, 6), native.floats(state, 7)
  dq, dk, dv = _parts(state, 8)
  count, heads, head = _sizes(state)
  columns, keys = head.columns, head.keys
  queries = np.zeros(keys * columns, np.float32)
  own_keys = np.zeros(keys * columns, np.float32)
  pulls = np.zeros(keys * columns, np.float32)
  k_by_channel = np.zeros(columns * keys, np.float32)
  v_by_channel = np.zeros(columns * keys, np.float32)
  weights = np.zeros(_QUERIES * keys, np.float32)
  pull = np.zeros(_QUERIES * keys, np.float32)
  on_queries = np.zeros(_QUERIES * columns, np.float32)
  on_keys = np.zeros(keys * columns, np.float32)
  on_values = np.zeros(keys * columns, np.float32)
  ones = np.full(keys, _ONE)
  scale = np.float32(1 / math.sqrt(head.width))
  scales = np.full(_QUERIES, scale)
  for n in range(count * part // parts, count * (part + 1) // parts):
    at = _place(head, n, heads)
    _read(q, at, head, scale, queries)
    _read(k, at, head, _ONE, own_keys)
    _read(dy, at, head, _ONE, pulls)
    _read_by_channel(k, at, head, k_by_channel)
    _read_by_channel(v, at, head, v_by_channel)
    on_keys[:] = 0
    on_values[:] = 0
    for first in range(0, head.time, _QUERIES):
      own = _rows(seen, n // heads, first, head)
      stop = _score(queries, k_by_channel, first, own, head, weights)
      _by_key(pulls, first, v_by_channel, stop, head, pull)
      logs = _rows(log_total, n, first, head)
      own_common = _rows(common, n, first, head)
      _pull_scores(weights, pull, own, stop, head, logs, own_common)
      _by_query(pull, own_keys, stop, head, on_queries)
      _write(on_queries, own.size, head, scales, dq, at + first * head.step)
      _add_by_key(pull, own.size, queries, first, stop, head, on_keys)
      _add_by_key(weights, own.size, pulls, first, stop, head, on_values)
    _write(on_keys, head.time, head, ones, dk, at)
    _write(on_values, head.time, head, ones, dv, at)


def forward(
  q: Float[Array, 'batch time heads d_head'],
  k: Float[Array, 'batch time heads d_head'],
  v: Float[Array, 'batch time heads d_head'],
  seen: Int32[Array, 'batch time'],
  sink: Float[Array, 'batch heads'],
) -> tuple[Float[Array, '...'], ...]:
  """As `attention_reference.forward`."""
  batch, time, heads, _ = q.shape
  y = jax.ShapeDtypeStruct(q.shape, jnp.float32)
  logs = jax.ShapeDtypeStruct((batch, heads, time), jnp.float32)
  operands = (q, k, v, seen, sink)
  return tuple(native.call(attention_forward, [y, logs], *operands))


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
  """As `attention_reference.backward`."""
  like = jax.ShapeDtypeStruct(q.shape, jnp.float32)
  operands = (q, k, v, seen, sink, log_total, common, dy)
  return tuple(native.call(attention_backward, [like] * 3, *operands))
