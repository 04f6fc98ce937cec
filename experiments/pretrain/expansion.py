"""The published sizes, by expansion factor, with the published defaults.

    python -m sparse_interp --config=pretrain/expansion:4 \
        --workdir=runs/expansion_4 --config.data.corpora="(('files:...', 1.0),)"

Width 256 * factor, 8 layers, heads of 16; 7.4 million nonzeros / 4 whatever
the factor (pfrac 1/4), so hidden matrices end at density 1 / (4 * factor**2)
and embeddings at 1 / (4 * factor). Paper section A.1 and the published script.
The published text is not: 35 billion tokens of generated Python. This asks for
accelerators; the whole run has not been made here.

"""

from ml_collections import config_dict

from sparse_interp.configs import sections
from sparse_interp.models import GPTConfig

FACTORS = ('1', '2', '4', '8', '16')


def get_config(factor: str = '4') -> config_dict.ConfigDict:
  """Returns the configuration of one expansion factor.

  Raises:
    ValueError: the factor is not a published one.
  """
  if factor not in FACTORS:
    raise ValueError(
      f'expansion factor must be one of {", ".join(FACTORS)}, got '
      f'{factor!r}; choose e.g. expansion.py:4.'
    )
  expansion = int(factor)
  config = config_dict.ConfigDict()
  config.run = 'pretrain'
  config.seed = 0  # of the order of data and of the initial weights

  config.data = config_dict.ConfigDict()
  config.data.corpora = (('stdlib', 1.0),)  # (corpus, weight) pairs
  # Per corpus; None, the default here, for all there is.
  config.data.max_bytes = sections.optional(int)
  config.data.vocab_size = 2048  # of the tokenizer
  config.data.validation_fraction = 0.01  # of the documents
  config.data.batch_size = 512  # windows per step
  config.data.length = 256  # tokens per window, the model's context

  # Vocabulary and context are those of the data.
  config.model = sections.section(
    GPTConfig,
    leave_out=('vocab_size', 'context_length', 'd_output', 'bigram_table'),
    n_layer=8,
    d_model=256 * expansion,
    d_head=16,
    activation_density=0.25,  # AbsTopK; None for dense ones
    sink=False,
    dtype='bfloat16',  # of the products; weights are float32
  )
  # A table of (vocab, vocab) logits; None: where the vocabulary is small.
  config.model.bigram_table = sections.optional(bool)

  config.sparsity = config_dict.ConfigDict()
  config.sparsity.density = 1 / (4 * expansion**2)  # final, hidden matrices
  # Embeddings and biases end this much denser than hidden matrices.
  config.sparsity.expansion_factor = float(expansion)
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
  config.train.tokens = 32_000_000_000  # in all
  config.train.log_every = 100  # steps
  config.train.eval_every = 1000  # steps
  config.train.eval_batches = 16  # of validation
  config.train.checkpoint_every = 1000  # steps
  config.train.keep_checkpoints = 2  # the latest
  config.train.fsdp = 1  # devices that share one copy of the state
  return config
