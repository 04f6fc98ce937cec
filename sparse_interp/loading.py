"""Loads a model, wherever it is: a workdir, or a compiled program."""

import pathlib

from sparse_interp.ground_truth.compiled import program_model
from sparse_interp.models.model import Model
from sparse_interp.training.trained import load_trained


def load(source: str | pathlib.Path) -> Model:
  """Reads a model.

  Args:
    source: the workdir of a run that trained or imported a model, or a compiled
      program: its .npz file, or its name among those that ship, e.g. 'hist'.

  Returns:
    The model. One that was imported without a tokenizer has neither tokenizer
    nor text; a program has no tokenizer, and its text is a sample of inputs.

  Raises:
    OSError: a file cannot be read.
    ValueError: there is no model, or a file is damaged.
  """
  path, names = pathlib.Path(source), program_model.shipped()
  if path.is_dir():
    return load_trained(path)
  if path.is_file() or str(source) in names:
    return program_model.load_program(str(source))
  raise ValueError(
    'source must be the workdir of a model, the file of a compiled program or '
    f'one of {", ".join(names)}, got {source}, where nothing is; correct the '
    'path, or run a pretrain configuration with this workdir first.'
  )
