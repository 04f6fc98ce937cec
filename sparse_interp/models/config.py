"""What a model is: every switch of the published configuration, validated."""

import dataclasses

import numpy as np

# The places where AbsTopK acts in training, by their published names
# (`afrac_loctypes` of the released configuration).
ACTIVATION_SITES = (
  'attn_in',
  'attn_out',
  'mlp_in',
  'mlp_out',
  'mlp_neuron',
  'attn_v',
  'attn_k',
  'attn_q',
)
# The residual stream after attention and MLP: the published code can, and no
# published model does.
RESIDUAL_SITES = ('resid_post_attn', 'resid_post_mlp')

# How a model may multiply with its weights: with all of them, with the nonzero
# ones, or with these where that is known to be faster.
PRODUCTS = ('auto', 'dense', 'row_sparse')

_CHOICES = {
  'norm': ('rms', 'layer', 'none'),
  'activation': ('gelu', 'gelu_tanh', 'relu'),
  'residual_activation': ('identity', 'relu'),
  'position': ('none', 'added', 'concat', 'concat_sinusoidal', 'rotary'),
  'dtype': ('float32', 'bfloat16'),
}

# RMSNorm: what torch.nn.RMSNorm(eps=None) uses in float32, and the published
# models.
_NORM_EPS = {'rms': float(np.finfo(np.float32).eps), 'layer': 1e-5, 'none': 0.0}


@dataclasses.dataclass(frozen=True)
class GPTConfig:
  """Architecture of a transformer (arXiv 2511.13653, A.1).

  Attributes:
    vocab_size: number of tokens.
    n_layer: number of blocks, each attention then MLP.
    d_model: width of the residual stream.
    d_head: width of one attention head.
    n_head: number of heads; None means d_model // d_head.
    d_mlp: number of neurons; None means 4 * d_model.
    context_length: longest sequence; bounds learned positions only.
    norm: 'rms', 'layer' or 'none', before attention, MLP and unembedding.
    norm_eps: what norms add to the mean square; None means the published
      models': 1.2e-7 with 'rms', 1e-5 with 'layer'.
    activation: 'gelu' (exact, by erf), 'gelu_tanh' (its approximation by tanh,
      as in GPT-2) or 'relu'.
    residual_activation: 'identity' or 'relu' after each residual add.
    parallel_residual: the MLP reads the residual stream from before the
      attention of its block (as in GPT-NeoX), not from after it.
    norm_bias: whether 'layer' norms have biases, too.
    use_bias: biases of the four matrices of a block.
    tied_unembed: unembed with the embedding matrix.
    activation_density: AbsTopK keeps int(density * width) entries at every
      one of `activation_sites`; None keeps all.
    activation_sites: subset of ACTIVATION_SITES and RESIDUAL_SITES.
    sink: a learned logit per head that takes attention to nowhere.
    bigram_table: dense (vocab, vocab) table added to the logits by the current
      token; the row of the last token (end of text) is never trained.
    position: 'none'; 'added' (learned, added to the embedding); 'concat'
      (learned) or 'concat_sinusoidal' (frozen): `d_position` read-only
      channels appended to the input of every attention and MLP; 'rotary':
      queries and keys are rotated by angles that grow with their position.
    d_position: number of channels of 'concat' and 'concat_sinusoidal'.
    rotary_fraction: share of each head's channels, its first ones, that
      'rotary' rotates.
    rotary_base: of the periods of 'rotary', 2 pi base^(2i / rotated channels).
    final_logits_bias: a constant (vocab,) vector added to the logits.
    causal: positions see themselves and earlier ones; if False, all.
    d_output: columns of the unembedding where outputs are not tokens; None
      means vocab_size.
    dtype: of the matrix products; parameters, norms, logits are float32.
  """

  vocab_size: int = 2048
  n_layer: int = 8
  d_model: int = 2048
  d_head: int = 16
  n_head: int | None = None
  d_mlp: int | None = None
  context_length: int = 256
  norm: str = 'rms'
  norm_eps: float | None = None
  activation: str = 'gelu'
  residual_activation: str = 'identity'
  parallel_residual: bool = False
  norm_bias: bool = True
  use_bias: bool = True
  tied_unembed: bool = False
  activation_density: float | None = 0.25
  activation_sites: tuple[str, ...] = ACTIVATION_SITES
  sink: bool = False
  bigram_table: bool = True
  position: str = 'none'
  d_position: int | None = None
  rotary_fraction: float = 1.0
  rotary_base: float = 10000.0
  final_logits_bias: bool = False
  causal: bool = True
  d_output: int | None = None
  dtype: str = 'float32'

  def __post_init__(self):
    for field in ('vocab_size', 'n_layer', 'd_model', 'd_head'):
      _require_positive(field, getattr(self, field))
    _require_positive('context_length', self.context_length)
    for field in ('n_head', 'd_mlp', 'd_position', 'd_output'):
      if getattr(self, field) is not None:
        _require_positive(field, getattr(self, field))
    for field, choices in _CHOICES.items():
      if getattr(self, field) not in choices:
        raise ValueError(
          f'model.{field} must be one of {", ".join(choices)}, got '
          f'{getattr(self, field)!r}; choose one of these.'
        )
    if self.n_head is None and self.d_model % self.d_head:
      raise ValueError(
        f'model.d_model must be divisible by model.d_head, got {self.d_model} '
        f'and {self.d_head}; choose e.g. d_model='
        f'{max(1, self.d_model // self.d_head) * self.d_head}, or set '
        'model.n_head.'
      )
    self._check_activation_sites()
    self._check_output()
    self._check_ranges()
    concatenated = self.position.startswith('concat')
    if concatenated != (self.d_position is not None):
      raise ValueError(
        'model.d_position must be set exactly when model.position is concat '
        f'or concat_sinusoidal, got {self.d_position} with '
        f'{self.position!r}; set or clear it.'
      )
    if self.position == 'concat_sinusoidal' and self.d_position % 2:
      raise ValueError(
        'model.d_position must be even for sinusoidal positions, got '
        f'{self.d_position}; choose {self.d_position + 1}.'
      )

  def _check_activation_sites(self):
    known = ACTIVATION_SITES + RESIDUAL_SITES
    unknown = [site for site in self.activation_sites if site not in known]
    if unknown:
      raise ValueError(
        'model.activation_sites must name sites among '
        f'{", ".join(known)}, got {unknown[0]!r}; remove it.'
      )
    density = self.activation_density
    if density is None:
      return
    if not 0 < density <= 1:
      raise ValueError(
        f'model.activation_density must be in (0, 1], got {density}; choose '
        'e.g. 0.25, or None to keep all activations.'
      )
    widths = {'mlp_neuron': self.mlp_width}
    widths |= dict.fromkeys(('attn_q', 'attn_k', 'attn_v'), self.d_attn)
    sites = self.activation_sites
    narrowest = min((widths.get(s, self.d_model) for s in sites), default=0)
    if sites and int(density * narrowest) < 1:
      raise ValueError(
        'model.activation_density must keep at least one entry of every '
        f'site, got {density} with a width of {narrowest}; choose at least '
        f'{1 / narrowest:.4g}.'
      )

  def _check_ranges(self):
    if self.norm_eps is not None and not 0 <= self.norm_eps < 1:
      raise ValueError(
        f'model.norm_eps must be in [0, 1), got {self.norm_eps}; choose e.g. '
        '1e-5, or None for that of the published models.'
      )
    if not 1 < self.rotary_base < np.inf:
      raise ValueError(
        f'model.rotary_base must be above 1 and finite, got '
        f'{self.rotary_base}; choose e.g. 10000.'
      )
    # In a model that rotates nothing, the fraction does not matter.
    if self.position != 'rotary':
      return
    in_range = 0 < self.rotary_fraction <= 1
    rotated = self.d_rotary if in_range else 0
    if rotated < 2 or rotated % 2:
      raise ValueError(
        'model.rotary_fraction must be in (0, 1] and rotate an even number of '
        f'the {self.d_head} channels of a head, got {self.rotary_fraction}, '
        f'which rotates {rotated}; choose e.g. 1.0 with an even model.d_head.'
      )

  def _check_output(self):
    if self.d_output is None:
      return
    for field in ('tied_unembed', 'bigram_table', 'final_logits_bias'):
      if getattr(self, field):
        raise ValueError(
          f'model.d_output must be None with model.{field}, which is as wide '
          f'as the vocabulary, got {self.d_output}; set model.{field}=False.'
        )

  @property
  def output_width(self) -> int:
    """Number of logits: d_output, or one per token."""
    return self.d_output or self.vocab_size

  @property
  def n_heads(self) -> int:
    """Number of attention heads."""
    return self.n_head or self.d_model // self.d_head

  @property
  def d_attn(self) -> int:
    """Width of q, k and v: heads times head width."""
    return self.n_heads * self.d_head

  @property
  def d_rotary(self) -> int:
    """Channels of each head that are rotated by position."""
    if self.position != 'rotary':
      return 0
    return int(self.rotary_fraction * self.d_head)

  @property
  def norm_epsilon(self) -> float:
    """What norms add to the mean square."""
    return _NORM_EPS[self.norm] if self.norm_eps is None else self.norm_eps

  @property
  def mlp_width(self) -> int:
    """Number of neurons in an MLP."""
    return self.d_mlp or 4 * self.d_model

  @property
  def block_input_width(self) -> int:
    """Width of attn.act_in and mlp.act_in: d_model plus positions if any."""
    if self.position.startswith('concat'):
      return self.d_model + self.d_position
    return self.d_model

  def kept_activations(self, site: str, width: int) -> int | None:
    """Entries that AbsTopK keeps at a site; None where it does not act."""
    if self.activation_density is None or site not in self.activation_sites:
      return None
    k = int(self.activation_density * width)
    return None if k >= width else k


def _require_positive(field: str, value: int):
  if not isinstance(value, int) or value < 1:
    raise ValueError(
      f'model.{field} must be a positive integer, got {value!r}; choose at '
      'least 1.'
    )
