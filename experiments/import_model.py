"""A model of other people as a workdir that prune takes.

    python -m sparse_interp --config=import_model \
        --config.source=<directory or file> --workdir=runs/imported

Reads released checkpoints of openai/circuit_sparsity (beeg_config.json and
final_model.pt or model.safetensors) and Hugging Face's GPT-2 and GPT-NeoX
(config.json and model.safetensors), without torch. Prints parameters, nonzeros
and hashes, and where `reference` is given how far logits and activations are
from recorded ones; the same is in summary.json.
"""

from ml_collections import config_dict

from sparse_interp.configs import sections


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = config_dict.ConfigDict()
  config.run = 'import_model'
  config.seed = 0  # of the order of the text
  # Directory, or the file with the weights; gs://, s3:// and https:// with the
  # extras gcs, s3 and http.
  config.source = sections.optional(str)
  # What the file with the weights must hash to; None: not checked.
  config.sha256 = sections.optional(str)
  # Directory with tokenizer.json, with vocab.json and merges.txt, or with
  # encoder.json and vocab.bpe, or such a file; None: looked for in the source;
  # 'none': there is to be none.
  config.tokenizer = sections.optional(str)
  # Text for the means of removed nodes: a file, a directory, or a corpus as in
  # data.corpora of a pretrain run. It should be like the training text.
  config.text = 'stdlib'
  # Tokens per window of that text; None: 256, or the model's context if less.
  config.length = sections.optional(int)
  # Recorded tokens, logits and act__<site with __ for dots> in an npz file.
  config.reference = sections.optional(str)
  config.tolerance = 1e-3  # largest difference from it, logits
  return config
