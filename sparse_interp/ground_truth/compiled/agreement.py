"""Whether a compiled model does what its program says, input by input.

A compiler can be wrong without a word: where a selector finds nothing, RASP
says None and the model says something; values whose names read the same end up
in one channel. So every program is compared when it is converted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sparse_interp.ground_truth.compiled.program import CompiledProgram, Value
from sparse_interp.tasks.compiled import Sequences, draw_inputs

# Inputs times positions squared, which is what the interpreter's time goes by.
_PAIRS = 2**20
_MOST_INPUTS = 4096
_FEWEST_INPUTS = 64


def inputs_to_compare(
  vocab: Sequence[Value], max_length: int, unique: bool
) -> Sequences:
  """All inputs of a program, or a seeded sample where there are too many.

  At most 4096, and fewer for long sequences: 2**20 / max_length**2, but 64 at
  least.

  Args:
    vocab: token of every id.
    max_length: longest sequence, without BOS.
    unique: whether the program is defined only without repeated tokens.
  """
  count = min(max(_PAIRS // max_length**2, _FEWEST_INPUTS), _MOST_INPUTS)
  return draw_inputs(vocab, max_length, count, 0, unique=unique)


def check(
  program: CompiledProgram,
  inputs: Sequences,
  compiled: Float[np.ndarray, 'count time outputs'],
  meaning: Callable[[list[Value]], Sequence[Any]],
) -> None:
  """Compares a model with the compiler's own and with the program.

  Args:
    program: the model.
    inputs: on which it is run.
    compiled: outputs of the compiler's own model on them.
    meaning: values of the program on a sequence, without BOS.

  Raises:
    ValueError: if they differ; names the first input on which they do.
  """
  outputs = np.asarray(program.run(inputs.tokens, inputs.lengths))
  decoded = program.decode(outputs, inputs.lengths)
  sequences = [
    [program.vocab[i] for i in row[1:length]]
    for row, length in zip(inputs.tokens, inputs.lengths, strict=True)
  ]
  wanted = [_meant(program, meaning, sequence) for sequence in sequences]
  largest = 0.0
  if program.output_kind == 'numerical':
    largest = max(abs(number) for row in wanted for number in row)
  for i, sequence in enumerate(sequences):
    for place, (want, got) in enumerate(
      zip(wanted[i], decoded[i], strict=True)
    ):
      if not _same(program, want, got, largest):
        raise _differs(
          program,
          f'{want!r} at place {place + 1} of {sequence!r}, where the compiled '
          f'model has {got!r}',
          'the compiler cannot express it; write it in another way',
        )
  seen = np.arange(outputs.shape[1]) < inputs.lengths[:, None]
  apart = np.abs(outputs - compiled).max(axis=2) * seen
  if not apart.max() <= 1e-5 * max(1, np.abs(compiled[seen]).max()):
    sequence = sequences[int(apart.max(axis=1).argmax())]
    raise _differs(
      program,
      f'outputs on {sequence!r} that are {apart.max():.1e} from those of the '
      "compiler's own model",
      'give its expressions other names',
    )


def _meant(program, meaning, sequence):
  """The values of a program on one input, all of them defined."""
  try:
    values = list(meaning(list(sequence)))
  except Exception as error:  # of whatever functions it was made from
    raise _differs(
      program,
      f'{type(error).__name__} ({error}) on {sequence!r}',
      'make it defined on every input, or leave tokens out of vocab',
    ) from error
  if len(values) != len(sequence):
    raise _differs(
      program,
      f'{len(values)} values on {sequence!r}',
      'give one for each token',
    )
  for place, value in enumerate(values):
    if value is None:
      raise _differs(
        program,
        f'None at place {place + 1} of {sequence!r}, for which a compiled '
        'model has no output',
        'let every selector find something (or have default=0, where numbers '
        'are averaged), and no function return None',
      )
    if program.output_kind == 'numerical' and not (
      isinstance(value, int | float | np.number) and np.isfinite(value)
    ):
      raise _differs(
        program, f'{value!r} on {sequence!r}', 'compute finite numbers'
      )
  return values


def _same(program, want, got, largest):
  if program.output_kind == 'numerical':
    # What float32 can say of sums of such numbers.
    return abs(want - got) <= 1e-4 * abs(want) + 1e-5 * largest + 1e-9
  return want == got


def _differs(program, found, remedy):
  line = (
    f'program {program.name} must be one that its compiled model equals on '
    f'every input, got {found}; {remedy}.'
  )
  return ValueError(' '.join(line.split()))
