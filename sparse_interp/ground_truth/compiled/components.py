"""Components of a model, and where they meet the residual stream.

Components that write to the residual stream are 'embed' (tokens, positions and
constants alike), heads 'a{layer}.h{head}' and MLPs 'm{layer}'; those that read
are 'a{layer}.h{head}.q', '.k' and '.v', 'm{layer}' and 'output'. An edge is a
pair (writer, reader): the components of ACDC's Tracr test (arXiv 2304.14997).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices

Edge = tuple[str, str]


class Component(NamedTuple):
  """What a component does with the residual stream through one matrix.

  Attributes:
    name: of the component.
    reads: whether it reads, else it writes.
    matrix: name of the matrix; 'final_resid' for the output, '' for 'embed'.
    weights: (d_model, _) entries of this component, residual channels first.
    place: which entries of the matrix these are, by its own axes.
  """

  name: str
  reads: bool
  matrix: str
  weights: Float[np.ndarray, 'd_model _']
  place: tuple[slice, slice]


def components(config: GPTConfig, params: dict) -> Iterator[Component]:
  """Reads and writes of the residual stream in forward order."""
  everything = slice(None)
  tables = [params['wte']['embedding']]
  if 'wpe' in params:
    tables.append(params['wpe']['embedding'])
  embedding = np.concatenate([np.asarray(table) for table in tables]).T
  yield Component('embed', False, '', embedding, (everything, everything))
  for matrix in edge_matrices(config):
    block = np.asarray(matrix.block(params))
    reads = matrix.source.endswith('act_in')
    layer, kind = matrix.source.split('.')[:2]
    if kind == 'mlp':
      weights = block if reads else block.T
      place = (everything, everything)
      yield Component(f'm{layer}', reads, matrix.name, weights, place)
      continue
    for head in range(config.n_heads):
      part = slice(head * config.d_head, (head + 1) * config.d_head)
      name = f'a{layer}.h{head}'
      if reads:
        name = f'{name}.{matrix.target[-1]}'
        place = (everything, part)
        yield Component(name, True, matrix.name, block[:, part], place)
      else:
        place = (part, everything)
        yield Component(name, False, matrix.name, block[part].T, place)
  kernel = np.asarray(params['lm_head']['kernel'])
  yield Component(
    'output', True, 'final_resid', kernel, (everything, everything)
  )


def first_writers(config: GPTConfig, params: dict) -> tuple[str, ...]:
  """The first component with a nonzero weight to each residual channel.

  Tracr computes a variable in one place. A channel is written again only by
  the MLP of a selector width, which clears it at BOS.

  Args:
    config: the model; norm 'none'.
    params: its parameters.

  Returns:
    Names by channel, '' where nothing is written.
  """
  writers = [''] * config.d_model
  for component in components(config, params):
    if not component.reads:
      for channel in np.flatnonzero(component.weights.any(axis=1)):
        writers[channel] = writers[channel] or component.name
  return tuple(writers)
