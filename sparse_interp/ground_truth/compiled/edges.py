"""Which component reads what which other wrote, given the weights."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Bool

from sparse_interp.ground_truth.compiled.components import Edge, components
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.models.sites import edge_matrices

Kept = Mapping[str, Bool[np.ndarray | Array, '_ _']]


def component_edges(
  program: CompiledProgram,
  kept: Kept | None = None,
  final_resid: Bool[np.ndarray | Array, 'd_model'] | None = None,
) -> frozenset[Edge]:
  """Component edges that a set of kept weights amounts to.

  (writer, reader) is an edge if a kept nonzero weight of the reader reads a
  residual channel that the writer, before it, writes with a kept nonzero
  weight. 'embed' counts as writing a channel if its value there differs
  between tokens or positions: the constant channel 'one' is no edge.

  Args:
    program: the program.
    kept: {name of an EdgeMatrix: which of its weights are kept}; all of a
      matrix that is absent. None keeps all.
    final_resid: channels that the output reads; None for all.

  Raises:
    ValueError: if a key or a shape is not the model's.
  """
  kept = dict(kept or {})
  if final_resid is not None:
    kept['final_resid'] = np.asarray(final_resid)[:, None]
  _check(program.config, kept)
  written, edges = {}, set()
  for component in components(program.config, program.params):
    weights = component.weights != 0
    if component.name == 'embed':
      weights = _varying(program.params)[:, None]
    elif component.matrix in kept:
      mask = np.asarray(kept[component.matrix], bool)[component.place]
      weights = weights & (mask if component.reads else mask.T)
    channels = weights.any(axis=1)
    if component.reads:
      edges |= {
        (writer, component.name)
        for writer, by_writer in written.items()
        if np.any(by_writer & channels)
      }
    else:
      written[component.name] = channels
  return frozenset(edges)


def _varying(params):
  """Channels where the embedding, or the position, makes a difference."""
  varying = False
  for table in ('wte', 'wpe'):
    values = np.asarray(params[table]['embedding'])
    varying = varying | (values != values[:1]).any(axis=0)
  return varying


def _check(config, kept):
  shapes = {'final_resid': (config.d_model, 1)}
  for matrix in edge_matrices(config):
    rows = config.d_attn if matrix.source.endswith('attn.v') else config.d_model
    rows = config.mlp_width if matrix.source.endswith('post_act') else rows
    shapes[matrix.name] = (rows, matrix.stop - matrix.start)
  for name, mask in kept.items():
    if name not in shapes or np.shape(mask) != shapes[name]:
      raise ValueError(
        f'kept must hold masks of the shapes of the edge matrices, got {name} '
        f'{np.shape(mask)}; that of the model is {shapes.get(name)}.'
      )


def edge_groups(
  program: CompiledProgram,
) -> dict[Edge, dict[str, Bool[np.ndarray, '...']]]:
  """The weights of every component edge, for removing edges one by one.

  The weights of an edge are those with which its reader reads the channels
  that its writer was the first to write, constants included. Every nonzero
  reading weight is in one group, except where its channel is written nowhere
  before it and so is always 0. Weights that write to the residual stream belong
  to no edge.

  Args:
    program: the program.

  Returns:
    {(writer, reader): {name of an EdgeMatrix: bool mask of its shape}}, in
    forward order. For the reader 'output' the one key is 'final_resid', with
    a mask of the (d_model,) channels.
  """
  names = {m.name: m for m in edge_matrices(program.config)}
  owners = np.full(program.config.d_model, '', object)
  groups = {}
  for component in components(program.config, program.params):
    weights = component.weights != 0
    if not component.reads:
      new = weights.any(axis=1) & (owners == '')
      owners[new] = component.name
      continue
    for writer in dict.fromkeys(owners[weights.any(axis=1)]):
      if not writer:
        continue
      part = weights & (owners == writer)[:, None]
      if component.name == 'output':
        mask = part.any(axis=1)
      else:
        block = names[component.matrix].block(program.params)
        mask = np.zeros(block.shape, bool)
        mask[component.place] = part
      groups[writer, component.name] = {component.matrix: mask}
  return groups
