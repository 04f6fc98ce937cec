"""A pretrained model, as every run that starts from one reads it."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits.ablation import site_means
from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.files import model_files, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPTConfig
from sparse_interp.training import metrics, pretrain

_PHASE = 'prune'


@dataclasses.dataclass(frozen=True)
class Model:
  """A pretrained model and what pruning needs to know of its making.

  Attributes:
    config: architecture.
    params: parameter tree.
    tokenizer: its tokenizer.
    means: {site: mean over pretraining text}.
    mean_tokens: number of tokens behind the means.
    provenance: hashes and version for the artifacts.
  """

  config: GPTConfig
  params: dict
  tokenizer: Tokenizer
  means: dict
  mean_tokens: int
  provenance: dict


def load(workdir: str | pathlib.Path) -> Model:
  """Reads a pretrained model and measures its means over pretraining text.

  Raises:
    ValueError: if there is no model, or it came without text: one imported
      without a tokenizer.
  """
  workdir = pathlib.Path(workdir)
  config, params = pretrain.load_model(workdir)
  if not model_files.lists(workdir, model_files.SAMPLE):
    raise ValueError(
      f'model_workdir must hold text as {model_files.SAMPLE}, which means of '
      f'removed nodes are measured on, got {workdir} without it; import the '
      'model again with --config.tokenizer=<directory>.'
    )
  # Restored arrays are bound to their device. Mixed with others that are not,
  # they would have every jitted function compiled twice.
  params = jax.tree.map(jnp.asarray, jax.device_get(params))
  windows = np.load(model_files.checked(workdir, model_files.SAMPLE))
  metrics.say(_PHASE, f'means of all nodes over {windows.size} tokens')
  batches = np.array_split(windows, max(1, len(windows) // 32))
  summary = workdir_lib.read_summary(workdir)
  return Model(
    config=config,
    params=params,
    tokenizer=Tokenizer.load(
      model_files.checked(workdir, model_files.TOKENIZER)
    ),
    means=site_means(config, params, batches),
    mean_tokens=int(windows.size),
    provenance={
      'corpus_hash': summary.get('corpus_hash'),
      'tokenizer_hash': summary.get('tokenizer_hash'),
      'code_version': workdir_lib.code_version(),
      'versions': versions.current(),
    },
  )
