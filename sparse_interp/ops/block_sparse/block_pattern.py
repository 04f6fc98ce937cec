"""Blocks of zeros in a dense matrix, skipped: a pattern for `sparse_linear`."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparse_interp.ops.block_sparse import block_sparse, block_sparse_matmul
from sparse_interp.ops.block_sparse.block_sparse import BlockSparse
from sparse_interp.ops.sparse_linear import Found
from sparse_interp.ops.thresholds import BLOCKS_DENSE_ABOVE


@dataclasses.dataclass(frozen=True)
class BlockPattern:
  """Whole blocks are zero; see `sparse_linear.Pattern`.

  Attributes:
    size: rows and columns of a block.
    dense_above: share of kept blocks above which all is multiplied.
    implementation: see `block_sparse_matmul`.
  """

  size: int
  dense_above: float = BLOCKS_DENSE_ABOVE
  implementation: str = 'auto'

  def chosen(self, dtype: jnp.dtype) -> 'BlockPattern':
    """With one that can do these blocks; see `choose_for_blocks`."""
    chosen = block_sparse_matmul.choose_for_blocks(
      self.implementation, self.size, dtype
    )
    return dataclasses.replace(self, implementation=chosen)

  def find(self, kernel: Float[Array, 'K N']) -> Found:
    """The kept blocks, or none of them where they are not going to be used."""
    kept = block_sparse.nonzero_blocks(kernel, self.size)
    most = int(self.dense_above * kept.size)
    pays = jnp.sum(kept) <= most
    layout = block_sparse.from_dense(
      kernel, self.size, max(1, most), kept & pays
    )
    return Found(layout, pays, jnp.mean(kept, dtype=jnp.float32))

  def saved(self, found: Found) -> Found:
    """All of it."""
    return found

  def find_again(self, kernel: Float[Array, 'K N'], saved: Found) -> Found:
    """The same blocks."""
    del kernel
    return saved

  def product(self, layout: BlockSparse, x: Float[Array, 'tokens K']) -> Array:
    """x @ kernel."""
    return block_sparse_matmul.block_sparse_matmul(
      x, layout, self.implementation
    )

  def pull_x(self, layout: BlockSparse, dy: Float[Array, 'tokens N']) -> Array:
    """dy @ kernel.T."""
    anywhere = jnp.zeros((dy.shape[0], layout.shape[0]), dy.dtype)
    return jax.vjp(lambda x: self.product(layout, x), anywhere)[1](dy)[0]

  def pull_kernel(
    self,
    layout: BlockSparse,
    x: Float[Array, 'tokens K'],
    dy: Float[Array, 'tokens N'],
  ) -> Array:
    """x.T @ dy in the blocks that are kept."""
    product = lambda blocks: self.product(layout.replace(blocks), x)  # noqa: E731
    (blocks,) = jax.vjp(product, layout.blocks)[1](dy)
    return block_sparse.to_dense(layout.replace(blocks))

  def held(self, kernel: Float[Array, 'K N']) -> Bool[Array, 'K N']:
    """The weights in blocks that are not all zero."""
    kept = block_sparse.nonzero_blocks(kernel, self.size)
    entries = jnp.repeat(jnp.repeat(kept, self.size, 0), self.size, 1)
    return entries[: kernel.shape[0], : kernel.shape[1]]
