"""The arrays of a small model, see `small_model`, which computes with them."""

import dataclasses
import functools
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int

from sparse_interp.models import GPTConfig


class Read(NamedTuple):
  """Norm of the residual stream and the kept channels of an act_in site."""

  gain: Float[Array, 'carried'] | None
  bias: Float[Array, 'carried'] | None
  rest_square: Float[Array, 'vocab'] | None  # of channels not carried
  residual: Int[Array, '_']  # carried channels that go on
  positions: Float[Array, 'context _'] | None  # normalised, appended
  kept: Int[Array, 'kept'] | None  # columns to keep; None: all are
  mean: Float[Array, 'kept']


class Linear(NamedTuple):
  """Product from kept inputs, and which of its columns are kept nodes."""

  kernel: Float[Array, 'inputs columns']
  bias: Float[Array, 'columns']
  kept: Int[Array, 'kept'] | None  # None: all columns are
  mean: Float[Array, 'kept']


class Heads(NamedTuple):
  """Attention patterns of the heads that matter.

  Scores sum over `slots`: channels whose query or key is a kept node, or is
  rotated by position. The side that is not kept, before its rotation, and all
  other channels are constants.
  """

  query: Float[Array, 'slots']  # constants, overwritten by kept nodes
  key: Float[Array, 'slots']
  query_from: Int[Array, '_']  # which kept q go ...
  query_to: Int[Array, '_']  # ... into which slots
  key_from: Int[Array, '_']
  key_to: Int[Array, '_']
  slot_of: Float[Array, 'heads slots']  # 1 where a slot belongs to a head
  constant: Float[Array, 'heads']  # score of all other channels
  channel: Int[Array, 'slots']  # of its head
  partner: Int[Array, 'slots']  # slot it is rotated with, or itself
  sink: Float[Array, 'heads'] | None
  value_head: Int[Array, 'values']  # head of each kept v
  # With a sink, attention sums to less than 1 and scales removed v's means.
  total_kernel: Float[Array, 'heads columns'] | None


class Block(NamedTuple):
  """Half a block: what it reads, computes and adds to the stream."""

  read: Read | None
  q: Linear | None
  k: Linear | None
  v: Linear | None
  heads: Heads | None
  neurons: Linear | None
  out: Linear | None
  write: Int[Array, '_']  # carried channels that kept nodes add to
  constant: Float[Array, 'carried']  # what removed nodes add


class Unembed(NamedTuple):
  """Last norm and unembedding of kept channels; the rest is constant."""

  channels: Int[Array, 'kept']
  mean: Float[Array, 'kept'] | None
  gain: Float[Array, 'kept']
  rest_count: Float[Array, '']  # removed channels ...
  rest_mean: Float[Array, '']  # ... their mean
  rest_spread: Float[Array, '']  # ... and squared distance from it
  kernel: Float[Array, 'kept outputs']
  rest_logits: Float[Array, 'outputs']
  rest_gain: Float[Array, 'outputs']
  bias: Float[Array, 'outputs']
  bigram_table: Float[Array, 'vocab vocab'] | None


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['embedding', 'added', 'blocks', 'unembed'],
  meta_fields=['config', 'closed'],
)
@dataclasses.dataclass(frozen=True)
class SmallModel:
  """A circuit that left home; see `small_model.apply`.

  Attributes:
    config: the model it was taken from.
    embedding: of the carried channels of the residual stream.
    added: positions added to the embedding, or None.
    blocks: attention and MLP of each layer, in order.
    unembed: last norm and unembedding.
    closed: whether kept nodes compete in AbsTopK with each other alone.
  """

  config: GPTConfig
  embedding: Float[Array, 'vocab carried']
  added: Float[Array, 'context carried'] | None
  blocks: tuple[Block, ...]
  unembed: Unembed
  closed: bool = False

  def size(self) -> int:
    """Number of scalars, tables by token included."""
    return sum(array.size for array in jax.tree.leaves(self))
