"""Trained models in memory: read from a workdir, or trained just now."""

import dataclasses
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from sparse_interp import configs
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.files import model_files
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models.model import Model
from sparse_interp.training import pretrain as pretrain_lib


def load_trained(workdir: str | pathlib.Path) -> Model:
  """Reads the model of a workdir, which a run trained or imported.

  Args:
    workdir: of the run; receives means.npz once means are asked for.

  Returns:
    The model; without a tokenizer and text where it was imported without.

  Raises:
    ValueError: there is no model, or a file is damaged.
  """
  workdir = pathlib.Path(workdir)
  config, params = pretrain_lib.load_model(workdir)
  # Restored arrays are bound to their device. Mixed with others that are not,
  # they would have every jitted function compiled twice.
  params = jax.tree.map(jnp.asarray, jax.device_get(params))
  tokenizer = windows = None
  if model_files.lists(workdir, model_files.TOKENIZER):
    path = model_files.checked(workdir, model_files.TOKENIZER)
    tokenizer = Tokenizer.load(path)
  if model_files.lists(workdir, model_files.SAMPLE):
    windows = np.load(model_files.checked(workdir, model_files.SAMPLE))
  return Model(
    config,
    params,
    tokenizer,
    windows,
    workdir=workdir,
    source=str(workdir),
    corpus_hash=workdir_lib.read_summary(workdir).get('corpus_hash'),
  )


def pretrain(
  config: config_dict.ConfigDict | str,
  workdir: str | pathlib.Path | None = None,
) -> Model:
  """Trains a model and returns it.

  Args:
    config: with the fields of experiments/pretrain/tiny.py, or the name of a
      configuration that ships, e.g. 'pretrain/laptop'.
    workdir: keeps the run; called again with the same arguments after it was
      interrupted, it goes on from the last checkpoint. None trains in a
      directory that is gone afterwards.

  Raises:
    KeyboardInterrupt: the training was interrupted; with a workdir, after a
      last checkpoint.
    ValueError: a field is wrong, or the workdir holds another configuration.
  """
  if isinstance(config, str):
    config = configs.load(*config.split(':'))
  if workdir is None:
    with tempfile.TemporaryDirectory() as directory:
      model = _trained(config, directory)
    return dataclasses.replace(model, workdir=None, source='pretrain')
  return _trained(
    config, workdir, 'the same call goes on from the last checkpoint'
  )


def _trained(
  config: config_dict.ConfigDict,
  workdir: str | pathlib.Path,
  what_now: str = 'nothing is kept without a workdir',
) -> Model:
  try:
    pretrain_lib.run(config, str(workdir))
  except SystemExit as stopped:  # what a command does; a notebook stays alive
    raise KeyboardInterrupt(f'stopped; {what_now}') from stopped
  return load_trained(workdir)
