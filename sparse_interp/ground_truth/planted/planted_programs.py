"""Programs with known weights, to be planted into trained models.

A program is spoken by tokens of its own. Evidence is hidden among filler and
among distractors that carry the same values; heads find it by marks, and one
neuron turns what was found into the answer. Everything is in series, and the
neuron fires for one of the two answers only, so no weight can be spared, not
even where the answer logits may be scaled and shifted afterwards.
"""

import dataclasses
from collections.abc import Mapping

# The token that ends every prompt, the two answers, and the channel whose sign
# tells them apart.
QUESTION, POSITIVE, NEGATIVE = 'Z', 'P', 'Q'
ANSWER = 'answer'

# The layer of the neuron.
NEURON_LAYER = 1


@dataclasses.dataclass(frozen=True)
class Lookup:
  """A head: tokens that ask copy the value of the token that is marked.

  Attributes:
    layer: where the head is.
    asks: residual channel that queries read.
    mark: residual channel that keys read.
    value: residual channel that is copied.
    result: residual channel that it is copied to.
  """

  layer: int
  asks: str
  mark: str
  value: str
  result: str


@dataclasses.dataclass(frozen=True)
class Program:
  """Tokens, heads and one neuron, by the names of their residual channels.

  Attributes:
    name: of the program.
    tokens: {token: {channel: embedding, in units of the amplitude}}.
    lookups: the heads, at most one in a layer.
    summands: channels that the neuron adds up.
    threshold: the neuron fires above this sum; not negative.
    contrasts: what prompts a and b of a pair can hold, in this order: one token
      for each part of the prompt. POSITIVE is right on a, NEGATIVE on b.
    distractors: two tokens for each part of the prompt, drawn at random.
  """

  name: str
  tokens: Mapping[str, Mapping[str, float]]
  lookups: tuple[Lookup, ...]
  summands: tuple[str, ...]
  threshold: float
  contrasts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
  distractors: tuple[tuple[str, str], ...]

  @property
  def channels(self) -> tuple[str, ...]:
    """Residual channels that mean something, in the order of their use."""
    names = [name for code in self.tokens.values() for name in code]
    names += [lookup.result for lookup in self.lookups]
    return tuple(dict.fromkeys([*names, ANSWER]))


# Which of X and Y is in the prompt? A and B have their values, but no mark.
LOOKUP = Program(
  name='lookup',
  tokens={
    'X': {'value': 1.0, 'mark': 1.0},
    'Y': {'value': -1.0, 'mark': 1.0},
    'A': {'value': 1.0},
    'B': {'value': -1.0},
    QUESTION: {'asks': 1.0, ANSWER: -0.5},
  },
  lookups=(Lookup(0, 'asks', 'mark', 'value', 'found'),),
  summands=('found',),
  threshold=0.0,
  contrasts=((('X',), ('Y',)),),
  distractors=(('A', 'B'),),
)

# The same question, but only the pointer R can see the marks of X and Y. C and
# D are as if they had found something, but are no pointers.
CHAIN = Program(
  name='chain',
  tokens={
    'X': {'value': 1.0, 'mark': 1.0},
    'Y': {'value': -1.0, 'mark': 1.0},
    'A': {'value': 1.0},
    'B': {'value': -1.0},
    'R': {'asks': 1.0, 'pointer': 1.0},
    'C': {'fetched': 1.0},
    'D': {'fetched': -1.0},
    QUESTION: {'asks pointer': 1.0, ANSWER: -0.5},
  },
  lookups=(
    Lookup(0, 'asks', 'mark', 'value', 'fetched'),
    Lookup(1, 'asks pointer', 'pointer', 'fetched', 'found'),
  ),
  summands=('found',),
  threshold=0.0,
  contrasts=((('X', 'R'), ('Y', 'R')),),
  distractors=(('A', 'B'), ('C', 'D')),
)

# Are both X and U in the prompt? Y stands for a missing X, V for a missing U.
BOTH = Program(
  name='both',
  tokens={
    'X': {'value': 1.0, 'mark': 1.0},
    'Y': {'value': -1.0, 'mark': 1.0},
    'U': {'value': 1.0, 'other mark': 1.0},
    'V': {'value': -1.0, 'other mark': 1.0},
    'A': {'value': 1.0},
    'B': {'value': -1.0},
    QUESTION: {'asks': 1.0, ANSWER: -0.5},
  },
  lookups=(
    Lookup(0, 'asks', 'mark', 'value', 'first'),
    Lookup(1, 'asks', 'other mark', 'value', 'second'),
  ),
  summands=('first', 'second'),
  threshold=1.0,
  contrasts=((('X', 'U'), ('Y', 'U')), (('X', 'U'), ('X', 'V'))),
  distractors=(('A', 'B'), ('A', 'B')),
)

PROGRAMS = {program.name: program for program in (LOOKUP, CHAIN, BOTH)}
