"""The model of the quickstart: trained in minutes on two CPU cores.

    python -m sparse_interp --config=pretrain/laptop \
        --workdir=runs/laptop

At 1250 steps: 3.7 minutes on 2 CPU cores with AVX-512 (jax 0.10.2), validation
loss 1.72 nats/token, hidden matrices 1 in 16 nonzero (seed 0), 16 to 17 of 20
tasks learned. At the 2500 steps that are there now: all 20, seeds 0 and 1, on
an H100 (experiments/benchmarks/results/laptop_recipes_h100.json), and seed 0 on
2 CPU cores, validation loss 1.605.
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
  # (corpus, weight) pairs
  config.data.corpora = (('idioms', 0.8), ('stdlib', 0.2))
  # Per corpus; None for all there is.
  config.data.max_bytes = sections.optional(int, 8_000_000)
  config.data.vocab_size = 2048  # of the tokenizer
  config.data.validation_fraction = 0.02  # of the documents
  config.data.batch_size = 32  # windows per step
  config.data.length = 128  # tokens per window, the model's context

  # Vocabulary and context are those of the data.
  config.model = sections.section(
    GPTConfig,
    leave_out=('vocab_size', 'context_length', 'd_output', 'bigram_table'),
    n_layer=3,
    d_model=128,
    d_head=32,
    activation_density=0.25,  # AbsTopK; None for dense ones
    sink=True,
  )
  # A table of (vocab, vocab) logits; None: where the vocabulary is small.
  config.model.bigram_table = sections.optional(bool)

  config.sparsity = config_dict.ConfigDict()
  config.sparsity.density = 1 / 16  # final share of nonzeros, hidden matrices
  config.sparsity.expansion_factor = 4.0  # embeddings: this much denser
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
  config.optimizer.learning_rate = 2e-2  # at its peak and final density
  config.optimizer.warmup_fraction = 0.02  # of the steps
  config.optimizer.beta1 = 0.9
  config.optimizer.beta2 = 0.95
  config.optimizer.eps = 0.1
  config.optimizer.weight_decay = 0.1
  config.optimizer.gradient_rms = 'normalise'  # or 'clip', 'none'

  config.train = config_dict.ConfigDict()
  config.train.tokens = 2500 * 32 * 128  # in all
  config.train.log_every = 25  # steps
  config.train.eval_every = 250  # steps
  config.train.eval_batches = 8  # of validation
  config.train.checkpoint_every = 250  # steps
  config.train.keep_checkpoints = 2  # the latest
  config.train.fsdp = 1  # devices that share one copy of the state
  return config
