"""Whether as few weights as a schedule ends with can be kept as asked."""

import numpy as np


def check_divides(name: str, shape: tuple[int, ...], block: int) -> None:
  """Checks that a matrix is made of whole blocks.

  Args:
    name: of the tensor, for the message.
    shape: of the tensor.
    block: side of a block.

  Raises:
    ValueError: it is not.
  """
  if all(side % block == 0 for side in shape):
    return
  common = int(np.gcd.reduce(shape))
  fits = [side for side in range(16, 129) if common % side == 0]
  remedy = f'choose {fits[-1]}' if fits else 'set it to None'
  raise ValueError(
    f'sparsity.block must divide both sides of {name}, got {block} for '
    f'{" x ".join(map(str, shape))}; {remedy}.'
  )


def check_counts(
  name: str,
  shape: tuple[int, ...],
  count: int,
  alive_axis: int | None,
  alive: int,
  block: int | None,
) -> None:
  """Checks that weights are left and that they can keep all units alive.

  Args:
    name: of the tensor, for the message.
    shape: of the tensor.
    count: the fewest weights that are ever kept.
    alive_axis: axis along which the weights of a unit lie, if any.
    alive: weights that every unit keeps; 0 for none.
    block: side of the blocks that are kept whole; None for single weights.

  Raises:
    ValueError: there are too few.
  """
  what = 'weight' if block is None else f'{block} x {block} block'
  if count < 1:
    raise ValueError(
      f'sparsity.density must leave at least one {what} in {name}, got '
      f'{count} of {int(np.prod(shape))}; raise sparsity.density.'
    )
  if not alive:
    return
  assert alive_axis is not None  # without one, no rule protects anything
  if block is not None:
    _check_blocks_alive(name, shape, count, alive_axis, alive, block)
    return
  units = int(np.prod(shape)) // shape[alive_axis]
  if alive > shape[alive_axis] or alive * units > count:
    raise ValueError(
      f'sparsity.minimum_alive needs {alive} x {units} = {alive * units} '
      f'nonzeros in {name}, got {count}; lower sparsity.minimum_alive to '
      f'{min(count // units, shape[alive_axis])} or raise '
      'sparsity.density.'
    )


def _check_blocks_alive(
  name: str,
  shape: tuple[int, ...],
  count: int,
  alive_axis: int,
  alive: int,
  block: int,
) -> None:
  """Raises ValueError when `count` weights are too few blocks for all units."""
  groups = int(np.prod(shape)) // shape[alive_axis] // block
  each, kept = -(-alive // block), count // block**2
  if alive > shape[alive_axis] or each * groups > kept:
    raise ValueError(
      f'sparsity.minimum_alive needs {each} x {groups} = {each * groups} '
      f'blocks in {name}, got {kept}; lower sparsity.minimum_alive to 0, raise '
      'sparsity.density or lower sparsity.block.'
    )
