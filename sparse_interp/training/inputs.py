"""What a run trains on and is measured on, from its configuration."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from sparse_interp.data import batches as batches_lib
from sparse_interp.files import model_files, whole_file
from sparse_interp.training import text as text_lib

_SAMPLE_TOKENS = 65_536


def prepare(
  config: config_dict.ConfigDict,
  workdir: str | pathlib.Path,
  say: Callable[[str], None],
) -> text_lib.Text:
  """See `text.prepare`; `say` receives progress lines."""
  return text_lib.prepare(
    workdir,
    [(spec, float(weight)) for spec, weight in config.data.corpora],
    config.seed,
    config.data.max_bytes,
    config.data.vocab_size,
    config.data.validation_fraction,
    say,
  )


def make_batches(
  config: config_dict.ConfigDict, text: text_lib.Text
) -> tuple[Any, list[Any]]:
  """(iterator over this process's training batches, validation batches)."""
  data = config.data
  processes = (jax.process_index(), jax.process_count())
  train = batches_lib.make_batches(
    text.train,
    text.weights,
    data.batch_size,
    data.length,
    config.seed,
    *processes,
    names=text.names,
  )
  if not data.validation_fraction:
    return iter(train), []
  validation = batches_lib.validation_batches(
    text.validation,
    text.weights,
    data.batch_size,
    data.length,
    config.train.eval_batches,
    *processes,
    names=text.names,
  )
  return iter(train), validation


def save_sample(
  config: config_dict.ConfigDict,
  text: text_lib.Text,
  workdir: str | pathlib.Path,
) -> None:
  """Writes the first windows of the training order, in one step."""
  path = pathlib.Path(workdir) / model_files.SAMPLE
  if model_files.vouches(workdir, model_files.SAMPLE):
    return
  data = config.data
  batches = iter(
    batches_lib.make_batches(
      text.train,
      text.weights,
      data.batch_size,
      data.length,
      config.seed,
      names=text.names,
    )
  )
  count = max(1, _SAMPLE_TOKENS // data.length)
  taken = [next(batches) for _ in range(-(-count // data.batch_size))]
  rows = np.concatenate(taken)[:count]
  with whole_file.writing(path) as part, part.open('wb') as file:
    np.save(file, rows)


def check_same(hashes: dict[str, str], before: dict[str, str]) -> None:
  """Refuses to go on with another text than a run began with.

  Args:
    hashes: of corpus and tokenizer, now.
    before: the same at the start.

  Raises:
    ValueError: one is another.
  """
  for what, value in hashes.items():
    if value != before[what]:
      raise ValueError(
        f'data.corpora must hold the text this run began with, got a {what} '
        f'with hash {value[:12]} instead of {before[what][:12]}; restore the '
        'text or choose another workdir.'
      )
