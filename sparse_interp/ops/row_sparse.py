"""Products with a matrix of which one weight in 30 to 1000 is not zero.

A `RowSparse` holds the nonzero weights alone, channel by channel: once by
output, for the product, and once by input, for the gradient of what is
multiplied. Each channel has as many (index, value) pairs as it has weights. No
width is padded to and no list takes what exceeds it: all implementations walk
the pairs of a channel in turn, so rows with very different counts cost what
they hold, as one padded to the longest row would not (2.6 to 6 times the
weights at 1 in 128 to 1 in 1024 of a random matrix of width 1024).

Products are feature-major inside, (channels, tokens): a weight then multiplies
contiguous numbers.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import layout as layouts
from jaxtyping import Array, Float, Int32

from sparse_interp.ops import row_sparse_cpu, row_sparse_gpu
from sparse_interp.ops import row_sparse_reference as reference

IMPLEMENTATIONS = ('auto', 'reference', 'cpu', 'mosaic_gpu', 'interpret')

# Of a transposition on a CPU. Few enough that a column of them stays in the
# cache although rows of a power of two share its sets.
_ROWS_AT_ONCE = 16


class Rows(NamedTuple):
  """Where the weights of each channel are, channel after channel.

  Attributes:
    index: the channel that is read, ascending within a channel.
    start: where the weights of a channel begin in `index`, and their number at
      the end.
  """

  index: Int32[Array, 'entries']
  start: Int32[Array, '_']


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
) -> RowSparse:
  """Gathers the nonzero weights of a matrix, which must not be traced."""
  matrix = np.asarray(matrix)
  inputs, outputs = np.nonzero(matrix)
  # Stable, so that inputs ascend within an output.
  by_output = np.argsort(outputs, kind='stable')
  order = np.empty_like(by_output)
  order[by_output] = np.arange(by_output.size)

  def rows(channel, index, count):
    start = np.searchsorted(channel, np.arange(count + 1))
    return Rows(*(jnp.asarray(a, jnp.int32) for a in (index, start)))

  layout = Layout(
    rows(outputs[by_output], inputs[by_output], matrix.shape[1]),
    rows(inputs, outputs, matrix.shape[0]),
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
  x: Float[Array, '*batch inputs'], w: RowSparse, impl: str = 'auto'
) -> Float[Array, '*batch outputs']:
  """Returns x @ w, in the dtype of x; sums are float32.

  Gradients are those of the product: in x, and in the weights that w holds, of
  which none comes back here.

  Args:
    x: any number of leading axes; float32 or bfloat16.
    w: the weights.
    impl: one of IMPLEMENTATIONS. 'auto' is 'cpu' on a CPU, 'mosaic_gpu' on a
      GPU with Hopper's instructions, 'reference' elsewhere. 'interpret' runs
      the GPU's kernel on a CPU, slowly, memory checked.

  Raises:
    ValueError: the last axis of x is not the inputs of w, or there is no such
      implementation.
  """
  impl = _of_this_machine() if impl == 'auto' else impl
  transpose = _transpose_on_cpu if impl == 'cpu' else jnp.transpose
  y_t = feature_major_matmul(transpose(x.reshape(-1, x.shape[-1])), w, impl)
  return transpose(y_t).reshape(*x.shape[:-1], w.shape[1])


def _transpose_on_cpu(x):
  """A transposition that moves numbers, some rows at a time.

  Else XLA only calls rows columns, and all that follows walks across memory:
  AbsTopK after a product took five times as long. A transposition in one go is
  fused with what makes x, which then walks across it: six times as long.
  """
  rows, columns = x.shape
  if rows % _ROWS_AT_ONCE or not x.size:
    return _in_order(x.T)
  parts = x.reshape(-1, _ROWS_AT_ONCE, columns)
  parts = _in_order(parts.transpose(0, 2, 1))
  return _in_order(parts.transpose(1, 0, 2)).reshape(columns, rows)


def _in_order(x):
  """Pins the layout in memory to the order of the axes."""
  order = layouts.Layout(major_to_minor=tuple(range(x.ndim)))
  return layouts.with_layout_constraint(x, order)


def feature_major_matmul(
  x_t: Float[Array, 'inputs tokens'], w: RowSparse, impl: str = 'auto'
) -> Float[Array, 'outputs tokens']:
  """The same for activations that are feature-major already: w^T @ x_t."""
  if impl not in IMPLEMENTATIONS:
    raise ValueError(
      f'impl must be one of {", ".join(IMPLEMENTATIONS)}, got {impl!r}; choose '
      "e.g. 'auto'."
    )
  if x_t.shape[0] != w.shape[0]:
    raise ValueError(
      f'x must have as many channels as w has inputs ({w.shape[0]}), got '
      f'{x_t.shape[0]}; check the order of the axes.'
    )
  if impl == 'auto':
    impl = _of_this_machine()
  return _product(x_t, w.value, w.layout, impl)


def _of_this_machine() -> str:
  platform = jax.default_backend()
  if platform == 'cpu':
    return 'cpu'
  capability = getattr(jax.devices()[0], 'compute_capability', '')
  if platform == 'gpu' and str(capability).startswith('9.'):
    return 'mosaic_gpu'
  return 'reference'


def _run(impl, value, rows, x_t):
  """Rows of weights times x_t, (rows, tokens), in the dtype of x_t."""
  if not (value.size and x_t.size):
    return jnp.zeros((rows.start.size - 1, x_t.shape[1]), x_t.dtype)
  if impl == 'cpu':
    return row_sparse_cpu.product(value, rows, x_t)
  if impl == 'reference':
    return reference.product(value, rows, x_t)
  return row_sparse_gpu.product(value, rows, x_t, impl == 'interpret')


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x_t, value, layout, impl):
  return _run(impl, value, layout.by_output, x_t)


def _forward(x_t, value, layout, impl):
  return _product(x_t, value, layout, impl), (x_t, value, layout)


def _backward(impl, residuals, dy_t):
  x_t, value, layout = residuals
  dx_t = _run(impl, value[layout.order], layout.by_input, dy_t)
  sample = reference.sampled
  if impl == 'cpu':
    sample = row_sparse_cpu.sampled
  dvalue = sample(x_t, dy_t, layout.by_output)
  return dx_t.astype(x_t.dtype), dvalue.astype(value.dtype), None


_product.defvjp(_forward, _backward)
