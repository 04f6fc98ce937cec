"""A pretrained model, as every run that starts from one reads it."""

import pathlib

from sparse_interp.files import model_files
from sparse_interp.models.model import Model
from sparse_interp.training import metrics, trained

_PHASE = 'prune'


def load(workdir: str | pathlib.Path) -> Model:
  """Reads a pretrained model and measures its means over pretraining text.

  Raises:
    ValueError: if there is no model, or it came without text: one imported
      without a tokenizer.
  """
  model = trained.load_trained(workdir)
  if model.windows is None:
    raise ValueError(
      f'model_workdir must hold text as {model_files.SAMPLE}, which means of '
      f'removed nodes are measured on, got {workdir} without it; import the '
      'model again with --config.tokenizer=<directory>.'
    )
  metrics.say(_PHASE, f'means of all nodes over {model.mean_tokens} tokens')
  _ = model.means  # now, while the line above says what takes the time
  return model
