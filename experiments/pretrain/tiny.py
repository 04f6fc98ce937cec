"""The smallest run that does everything; what the tests train.

    python -m sparse_interp --config=pretrain/tiny \
        --workdir=runs/tiny

"""

from ml_collections import config_dict

from sparse_interp.configs import sections
from sparse_interp.models import GPTConfig


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = config_dict.ConfigDict()
  config.run = 'pretrain'
  config.seed = 0  # of the order of data and of the initial weights

  config.data = config_dict.ConfigDict()
  config.data.corpora = (('idioms', 1.0),)  # (corpus, weight) pairs
  # Per corpus; None for all there is.
  config.data.max_bytes = sections.optional(int, 200_000)
  config.data.vocab_size = 384  # of the tokenizer
  config.data.validation_fraction = 0.1  # of the documents
  config.data.batch_size = 8  # windows per step
  config.data.length = 32  # tokens per window, the model's context

  # Vocabulary and context are those of the data.
  config.model = sections.section(
    GPTConfig,
    leave_out=('vocab_size', 'context_length', 'd_output', 'bigram_table'),
    n_layer=2,
    d_model=32,
    d_head=8,
    activation_density=0.25,  # AbsTopK; None for dense ones
    sink=True,
  )
  # A table of (vocab, vocab) logits; None: where the vocabulary is small.
  config.model.bigram_table = sections.optional(bool)

  config.sparsity = config_dict.ConfigDict()
  config.sparsity.density = 1 / 4  # final share of nonzeros, hidden matrices
  config.sparsity.expansion_factor = 2.0  # embeddings: this much denser
  config.sparsity.anneal = 'linear'  # or 'power_law', 'exponential'
  config.sparsity.exponent = 1.0  # of the linear anneal
  config.sparsity.start_fraction = 0.01  # of the steps, before the anneal
  config.sparsity.stop_fraction = 0.5  # of the steps, when it is over
  config.sparsity.embedding_schedule = 'fixed'  # or 'bug', as in the paper
  config.sparsity.minimum_alive = 4  # weights per neuron and channel
  config.sparsity.biases = 'sparse'  # or 'dense'
  # Side of blocks kept or dropped whole in the layers' matrices, 16 to 128;
  # None, the default here, for single weights.
  config.sparsity.block = sections.optional(int)
  # How the layers multiply: 'row_sparse' skips zeros, 'auto' where that pays.
  config.sparsity.products = 'auto'
  # Weights that are zero get a gradient only every so many steps; None: always.
  config.sparsity.regrow_every = sections.optional(int)

  config.optimizer = config_dict.ConfigDict()
  config.optimizer.learning_rate = 1.28e-2  # at its peak and final density
  config.optimizer.warmup_fraction = 0.01  # of the steps
  config.optimizer.beta1 = 0.9
  config.optimizer.beta2 = 0.95
  config.optimizer.eps = 0.1
  config.optimizer.weight_decay = 0.1
  config.optimizer.gradient_rms = 'normalise'  # or 'clip', 'none'

  config.train = config_dict.ConfigDict()
  config.train.tokens = 60 * 8 * 32  # in all
  config.train.log_every = 5  # steps
  config.train.eval_every = 20  # steps
  config.train.eval_batches = 2  # of validation
  config.train.checkpoint_every = 10  # steps
  config.train.keep_checkpoints = 2  # the latest
  config.train.fsdp = 1  # devices that share one copy of the state
  return config
