"""A compiled program as a model like any other."""

import os

from sparse_interp.ground_truth.compiled import storage
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.ground_truth.compiled.programs import SHIPPED
from sparse_interp.models.model import Model
from sparse_interp.tasks import compiled

# Inputs that means of a program's nodes are taken over, at most.
_INPUTS = 256


def shipped() -> list[str]:
  """Names of the compiled programs that come with the package."""
  return sorted(path.stem for path in SHIPPED.glob('*.npz'))


def load_program(source: str | os.PathLike) -> Model:
  """Reads a compiled program as a model.

  Args:
    source: its file, or the name of one that ships.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no whole file of a program.
  """
  name = os.fspath(source)
  if not os.path.isfile(name) and name in shipped():
    program = storage.load(SHIPPED / f'{name}.npz')
    return model_of(program, f'the compiled program {name}')
  return model_of(storage.load(name), name)


def model_of(program: CompiledProgram, source: str) -> Model:
  """A compiled program as a model; its windows are some longest inputs.

  Args:
    program: the program.
    source: where it is from, in words.
  """
  longest = program.max_length
  if program.unique_tokens:
    special = (compiled.BOS, compiled.PAD)
    longest = min(longest, len(set(program.vocab) - set(special)))
  inputs = compiled.draw_inputs(
    program.vocab,
    program.max_length,
    _INPUTS,
    seed=0,
    lengths=[longest],
    unique=program.unique_tokens,
  )
  return Model(
    program.config, program.params, windows=inputs.tokens, source=source
  )
