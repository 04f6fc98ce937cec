"""A compiled program: a GPT whose channels have a meaning, and its truth."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.ground_truth.compiled import components, labels
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.tasks import compiled
from sparse_interp.tasks.compiled import Sequences

# What tokens and outputs of a program can be.
Value = str | int | float | bool | None


class Examples(NamedTuple):
  """Inputs of a program and what the compiler's own model makes of them."""

  tokens: Int[np.ndarray, 'count time']
  lengths: Int[np.ndarray, 'count']
  outputs: Float[np.ndarray, 'count time outputs']


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
  """A program as a model with a known circuit.

  Attributes:
    name: of the program.
    config: the model: no norm, relu, added positions, outputs of its own.
    params: its parameters, float32.
    vocab: token of every id; the beginning of a sequence is compiled.BOS, the
      filler behind it compiled.PAD.
    output_kind: 'categorical', one logit per value, or 'numerical', one number.
    output_values: value of each logit; () where outputs are numerical.
    unique_tokens: whether the program is defined only on sequences that have
      no token twice.
    channels: meaning of every residual channel: 'tokens:x', 'indices:3',
      'length:2' (expression and value) or 'opens' (a number).
    edges: the true component edges, (writer, reader); see `craft_graph`.
    examples: a few inputs and the outputs that Tracr's own model has.
  """

  name: str
  config: GPTConfig
  params: dict
  vocab: tuple[Value, ...]
  output_kind: str
  output_values: tuple[Value, ...]
  unique_tokens: bool
  channels: tuple[str, ...]
  edges: frozenset[tuple[str, str]]
  examples: Examples

  @property
  def max_length(self) -> int:
    """Longest sequence, without BOS."""
    return self.config.context_length - 1

  @functools.cached_property
  def labels(self) -> dict[str, tuple[str, ...]]:
    """{site: meaning of each of its channels}; '' where there is none."""
    return labels.site_labels(self.config, self.params, self.channels)

  @functools.cached_property
  def writers(self) -> tuple[str, ...]:
    """First component to write each residual channel; '' if none does."""
    return components.first_writers(self.config, self.params)

  def encode(self, sequences: Sequence[Sequence[Value]]) -> Sequences:
    """Sequences of tokens, without BOS, as the model reads them.

    Raises:
      ValueError: if a token is not in the vocabulary, or a sequence is empty
        or too long.
    """
    ids = {token: i for i, token in enumerate(self.vocab)}
    for token in {token for sequence in sequences for token in sequence}:
      if token not in ids or token in (compiled.BOS, compiled.PAD):
        raise ValueError(
          f'sequences must hold tokens of {self.name}, got {token!r}; choose '
          f'among {", ".join(map(repr, self.vocab))}.'
        )
    return compiled.pad(
      [[ids[token] for token in sequence] for sequence in sequences],
      self.vocab,
      self.max_length,
    )

  def decode(
    self, outputs: Float[np.ndarray | Array, 'count time outputs'], lengths
  ) -> list[list[Value]]:
    """Values at every position after BOS of sequences of these lengths."""
    outputs = np.asarray(outputs)
    rows = zip(outputs, np.asarray(lengths), strict=True)
    if self.output_kind == 'numerical':
      return [row[1:length, 0].tolist() for row, length in rows]
    return [
      [self.output_values[i] for i in row[1:length].argmax(axis=-1)]
      for row, length in rows
    ]

  def draw(self, count: int, seed: int, split: str = 'all') -> Sequences:
    """Inputs on which the program is defined; see `compiled.draw_inputs`."""
    return compiled.draw_inputs(
      self.vocab,
      self.max_length,
      count,
      seed,
      unique=self.unique_tokens,
      split=split,
    )

  def run(
    self,
    tokens: Int[np.ndarray | Array, 'count time'],
    lengths: Int[np.ndarray | Array, 'count'],
  ) -> Float[Array, 'count time outputs']:
    """Outputs of the model; those behind a length mean nothing."""
    return _run(
      self.config, self.params, jnp.asarray(tokens), jnp.asarray(lengths)
    )


@functools.partial(jax.jit, static_argnames='config')
def _run(config, params, tokens, lengths):
  model = GPT(config)
  return model.apply({'params': params}, tokens, lengths=lengths)[0]
