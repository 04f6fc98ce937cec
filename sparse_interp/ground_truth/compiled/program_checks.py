"""Whether what is said of a compiled program is so."""

import numpy as np

from sparse_interp.ground_truth.compiled.edges import component_edges
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.tasks import compiled


def broken(program: CompiledProgram) -> str | None:
  """What a program must do and does not; None if all is well.

  Args:
    program: whose parameters have the shapes of its configuration.

  Returns:
    The first constraint that does not hold, to complete 'must'.
  """
  for check in (_fields, _numbers, _examples, _edges):
    constraint = check(program)
    if constraint:
      return constraint
  return None


def _fields(program):
  config, vocab = program.config, program.vocab
  for field, value in (
    ('norm', 'none'),
    ('activation', 'relu'),
    ('position', 'added'),
    ('bigram_table', False),
    ('activation_density', None),
  ):
    if getattr(config, field) != value:
      return f'be a model with {field} {value}'
  if not all(isinstance(channel, str) for channel in program.channels):
    return 'name its channels by text'
  sizes = {
    'vocab': (vocab, config.vocab_size),
    'channels': (program.channels, config.d_model),
    'output_values': (program.output_values, config.output_width),
  }
  if program.output_kind == 'numerical':
    sizes['output_values'] = (program.output_values, 0)
    if config.output_width != 1:
      return 'have one numerical output'
  elif program.output_kind != 'categorical':
    return 'have categorical or numerical outputs'
  for field, (found, expected) in sizes.items():
    if len(found) != expected:
      return f'have {expected} {field}, not {len(found)}'
    if len(set(found)) < len(found):
      return f'have each of its {field} once'
  if compiled.BOS not in vocab or {*vocab} <= {compiled.BOS, compiled.PAD}:
    return f'have {compiled.BOS!r} and others as tokens'
  return None


def _numbers(program):
  for name, tree in program.params.items():
    arrays = [tree]
    while arrays:
      array = arrays.pop()
      if isinstance(array, dict):
        arrays += array.values()
      elif not np.all(np.isfinite(array)):
        return f'hold finite numbers in {name}'
  return None


def _examples(program):
  """Shapes, tokens and lengths, and that the model has these outputs."""
  tokens, lengths, outputs = program.examples
  time = program.config.context_length
  count = len(lengths) if lengths.ndim == 1 else 0
  shapes = [(count, time), (count,), (count, time, program.config.output_width)]
  if not count or [x.shape for x in program.examples] != shapes:
    return 'hold examples of the shapes of its model'
  kinds = [x.dtype.kind for x in program.examples]
  if kinds != ['i', 'i', 'f'] or not np.all(np.isfinite(outputs)):
    return 'hold examples as whole numbers, with finite outputs'
  if lengths.min() < 2 or lengths.max() > time:
    return f'hold examples of lengths from 2 to {time}'
  if tokens.min() < 0 or tokens.max() >= len(program.vocab):
    return f'hold examples with tokens below {len(program.vocab)}'
  sequences = [
    [program.vocab[i] for i in row[1:length]]
    for row, length in zip(tokens, lengths, strict=True)
  ]
  special = {compiled.BOS, compiled.PAD}
  if any(special & {*sequence} for sequence in sequences) or not np.array_equal(
    program.encode(sequences).tokens, tokens
  ):
    return f'hold examples that begin with {compiled.BOS!r} alone'
  seen = np.arange(time) < lengths[:, None]
  found = np.asarray(program.run(tokens, lengths))[seen]
  if not np.allclose(
    found, outputs[seen], 0, 1e-4 * max(1, np.abs(outputs[seen]).max())
  ):
    return 'have the outputs that its examples say'
  return None


def _edges(program):
  unknown = program.edges - component_edges(program)
  if unknown:
    return f'have edges between its own components, not {min(unknown)}'
  return None
