"""Products with a matrix of which one weight in 30 to 1000 is not zero.

A `RowSparse` holds the nonzero weights alone, channel by channel: once by
output, for the product, and once by input, for the gradient of what is
multiplied. Each channel has as many (index, value) pairs as it has weights. No
width is padded to and no list takes what exceeds it: all implementations walk
the pairs of a channel in turn, so rows with very different counts cost what
they hold, as one padded to the longest row would not (2.6 to 6 times the
weights at 1 in 128 to 1 in 1024 of a random matrix of width 1024).

Activations are (tokens, channels) or, feature-major, (channels, tokens). The
kernels take the first; the second costs a transposition before and after. A
GPU's kernel wants the weights in another order (`row_strips`), which is made on
the host together with the lists.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import machine
from sparse_interp.ops.row_sparse import row_sparse_kernels, row_strips
from sparse_interp.ops.row_sparse import row_sparse_reference as reference
from sparse_interp.ops.tuned import choice

IMPLEMENTATIONS = ('reference', 'cpu', 'gpu', 'gpu_interpreted')


class Rows(NamedTuple):
  """Where the weights of each channel are, channel after channel.

  Attributes:
    index: the channel that is read, ascending within a channel.
    start: where the weights of a channel begin in `index`, and their number at
      the end.
    strips: the same for a GPU's kernel; None where it has not been made, or a
      row does not fit a GPU.
  """

  index: Int32[Array, 'entries']
  start: Int32[Array, '_']
  strips: row_strips.Strips | None = None


class Layout(NamedTuple):
  """Where all weights are, in both orders.

  Attributes:
    by_output: inputs that each output reads.
    by_input: outputs that read each input.
    order: places in `by_output` of the weights in the order of `by_input`,
      which is that of `np.nonzero(matrix)`.
  """

  by_output: Rows
  by_input: Rows
  order: Int32[Array, 'entries']


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['value', 'layout'],
  meta_fields=['shape'],
)
@dataclasses.dataclass(frozen=True)
class RowSparse:
  """The nonzero weights of a matrix; a pytree.

  Attributes:
    value: weights, by output channel, then by input channel; (entries,). Not
      annotated as an array, since JAX rebuilds a pytree with other leaves.
    layout: where they are.
    shape: (inputs, outputs) of the matrix.
  """

  value: Any
  layout: Layout
  shape: tuple[int, int]

  @property
  def density(self) -> float:
    """Share of the weights that are held."""
    return self.value.size / max(1, self.shape[0] * self.shape[1])


def from_dense(
  matrix: Float[Array | np.ndarray, 'inputs outputs'],
  for_gpu: bool | None = None,
) -> RowSparse:
  """Gathers the nonzero weights of a matrix, which must not be traced.

  Args:
    matrix: weights.
    for_gpu: also in the order that a GPU's kernel takes; None where there is
      such a GPU.
  """
  matrix = np.asarray(matrix)
  if for_gpu is None:
    for_gpu = machine.of_this_machine() == 'gpu'
  inputs, outputs = np.nonzero(matrix)
  # Stable, so that inputs ascend within an output.
  by_output = np.argsort(outputs, kind='stable')
  order = np.empty_like(by_output)
  order[by_output] = np.arange(by_output.size)

  def rows(channel, index, count, inputs):
    start = np.searchsorted(channel, np.arange(count + 1))
    lanes = _for_gpus().lanes_for(inputs) if for_gpu and index.size else 0
    strips = row_strips.make(index, start, inputs, lanes) if lanes else None
    return Rows(*(jnp.asarray(a, jnp.int32) for a in (index, start)), strips)

  layout = Layout(
    rows(outputs[by_output], inputs[by_output], *matrix.shape[::-1]),
    rows(inputs, outputs, *matrix.shape),
    jnp.asarray(order, jnp.int32),
  )
  value = jnp.asarray(matrix[inputs[by_output], outputs[by_output]])
  return RowSparse(value, layout, matrix.shape)


def to_dense(w: RowSparse) -> Float[Array, 'inputs outputs']:
  """The matrix, zeros included."""
  rows = w.layout.by_output
  matrix = jnp.zeros(w.shape, w.value.dtype)
  return matrix.at[rows.index, reference.channels(rows)].set(w.value)


def row_sparse_matmul(
  x: Float[Array, '*batch inputs'], w: RowSparse, implementation: str = 'auto'
) -> Float[Array, '*batch outputs']:
  """Returns x @ w, in the dtype of x; sums are float32.

  Gradients are those of the product: in x, and in the weights that w holds, of
  which none comes back here.

  Args:
    x: any number of leading axes; float32 or bfloat16.
    w: the weights.
    implementation: 'auto' or one of IMPLEMENTATIONS; see `machine`. On a GPU
      'auto' is its kernel where that is known to be faster than the dense
      product, else the dense product.

  Raises:
    ValueError: the last axis of x is not the inputs of w, or there is no such
      implementation.
  """
  implementation = _check(x.shape[-1], w, implementation)
  y = _product(
    x.reshape(-1, x.shape[-1]), w.value, w.layout, implementation, False
  )
  return y.reshape(*x.shape[:-1], w.shape[1])


def feature_major_matmul(
  x_t: Float[Array, 'inputs tokens'], w: RowSparse, implementation: str = 'auto'
) -> Float[Array, 'outputs tokens']:
  """The same for activations that are feature-major: w^T @ x_t."""
  implementation = _check(x_t.shape[0], w, implementation)
  return _product(x_t, w.value, w.layout, implementation, True)


def _check(channels: int, w: RowSparse, implementation: str) -> str:
  """The implementation meant; raises ValueError if nothing fits.

  'auto' stays where each product of a GPU has to be looked up.
  """
  chosen = machine.choose(implementation, IMPLEMENTATIONS)
  if implementation == 'auto' and chosen == 'gpu':
    chosen = 'auto'
  if channels != w.shape[0]:
    raise ValueError(
      f'x must have as many channels as w has inputs ({w.shape[0]}), got '
      f'{channels}; check the order of the axes.'
    )
  return chosen


def rows_product(
  implementation: str,
  value: Array,
  rows: Rows,
  x: Array,
  feature_major: bool = False,
) -> Array:
  """x times rows of weights, in the order of axes and the dtype of x.

  Args:
    implementation: which; 'auto' looks up what is known of a GPU.
    value: weights, row after row; (entries,).
    rows: where they are.
    x: (tokens, inputs), or (inputs, tokens).
    feature_major: which of both.

  Returns:
    (tokens, rows), or (rows, tokens); no gradient is defined.
  """
  kernel, variant = _kernel_of(implementation, value, rows, x, feature_major)
  if feature_major == (kernel != 'reference'):
    x = x.T
  if not (value.size and x.size):
    count = rows.start.size - 1
    tokens = x.shape[int(kernel == 'reference')]
    y = jnp.zeros((tokens, count), x.dtype)
    return y.T if feature_major else y
  if kernel == 'cpu':
    y = row_sparse_kernels.product(value, rows, x)
  elif kernel == 'reference':
    y = reference.product(value, rows, x)
  else:
    interpret = kernel == 'gpu_interpreted'
    y = _for_gpus().product(
      value, rows.strips, rows.start.size - 1, x, interpret, variant
    )
  return y.T if feature_major == (kernel != 'reference') else y


def _kernel_of(implementation, value, rows, x, feature_major):
  """(implementation, variant) that computes a product."""
  if implementation in ('cpu', 'reference'):
    return implementation, ''
  # Lists that are traced have no strips.
  if rows.strips is None or x.dtype not in (jnp.float32, jnp.bfloat16):
    return 'reference', ''
  if implementation == 'auto':
    inputs, tokens = x.shape if feature_major else x.shape[::-1]
    outputs = rows.start.size - 1
    variant = choice.best(
      'row_sparse',
      dtype=x.dtype.name,
      tokens=tokens,
      inputs=inputs,
      outputs=outputs,
      density=value.size / (inputs * outputs),
    )
    return ('reference', '') if variant is None else ('gpu', variant)
  return implementation, _for_gpus().DEFAULT


def _for_gpus():
  # Pallas for accelerators takes a second to import, and CPUs do without.
  from sparse_interp.ops.row_sparse import row_sparse_gpu

  return row_sparse_gpu


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _product(x, value, layout, implementation, feature_major):
  return rows_product(implementation, value, layout.by_output, x, feature_major)


def _forward(x, value, layout, implementation, feature_major):
  y = _product(x, value, layout, implementation, feature_major)
  return y, (x, value, layout)


def _backward(implementation, feature_major, residuals, dy):
  x, value, layout = residuals
  by_input = value[layout.order]
  dx = rows_product(
    implementation, by_input, layout.by_input, dy, feature_major
  )
  sample = reference.sampled
  if implementation == 'cpu':
    sample = row_sparse_kernels.sampled
  if feature_major == (implementation == 'cpu'):
    x, dy = x.T, dy.T
  dvalue = sample(x, dy, layout.by_output)
  return dx.astype(x.dtype), dvalue.astype(value.dtype), None


_product.defvjp(_forward, _backward)
