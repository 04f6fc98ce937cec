"""Programs compiled with Tracr (arXiv 2301.05062) as models of ours.

Tracr orders residual channels and neurons by names that count the expressions
a process has made so far. Here names and orders depend on the program alone.
"""

import functools
import importlib.util
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sparse_interp.ground_truth.compiled import agreement
from sparse_interp.ground_truth.compiled.components import first_writers
from sparse_interp.ground_truth.compiled.craft_graph import EMBED, true_edges
from sparse_interp.ground_truth.compiled.program import (
  CompiledProgram,
  Examples,
  Value,
)
from sparse_interp.ground_truth.compiled.tracr_layout import layout_of
from sparse_interp.ground_truth.compiled.tracr_params import convert_params
from sparse_interp.models import GPTConfig
from sparse_interp.tasks.compiled import BOS, PAD, Sequences, draw_inputs

_EXAMPLES = 24


def require_tracr() -> None:
  """Says in one line how to install Tracr where it is missing.

  Raises:
    ImportError: if it is.
  """
  if importlib.util.find_spec('tracr') is None:
    raise ImportError(
      'Tracr must be installed to compile programs, got no module tracr; run '
      "pip install -e '.[tracr]'."
    )


def compile_program(
  program: Any,
  vocab: Iterable[Value],
  max_length: int,
  causal: bool = False,
  name: str = 'program',
  unique_tokens: bool = False,
) -> CompiledProgram:
  """Compiles a RASP program, and compares the model with it: see `convert`.

  Args:
    program: the expression to compute, a `tracr.rasp.rasp.SOp`.
    vocab: tokens that it may read.
    max_length: longest sequence, without BOS.
    causal: whether positions see themselves and earlier ones only. The program
      then means what RASP means with causal selectors.
    name: of the program.
    unique_tokens: whether it is defined only without repeated tokens.

  Raises:
    ImportError: if Tracr is not installed.
    ValueError: if Tracr cannot compile the program, or the model is not the
      program on every input.
  """
  try:
    from tracr.compiler import compiling
    from tracr.rasp import rasp
  except ImportError as error:
    raise ImportError(
      f'Tracr must be installed to compile programs ({error}); run pip install '
      "-e '.[tracr]'."
    ) from None
  vocab = set(vocab)
  _check_asked(rasp, program, vocab, max_length)
  try:
    assembled = compiling.compile_rasp_to_model(
      program,
      vocab,
      max_length,
      causal=causal,
      compiler_bos=BOS,
      compiler_pad=PAD,
    )
  except Exception as error:  # Tracr's own, and those of the user's functions
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(
      f'program {name} must be one that Tracr can compile, got {reason[:200]}; '
      'write it in another way, or leave tokens out of vocab.'
    ) from error
  return convert(assembled, program, name, unique_tokens)


def _check_asked(rasp, program, vocab, max_length):
  """Refuses what Tracr would fail on without saying why."""
  if not isinstance(program, rasp.SOp) or isinstance(
    program, type(rasp.tokens) | type(rasp.indices)
  ):
    raise ValueError(
      'program must be a sequence operation that computes something, got '
      f'{str(getattr(program, "label", program))[:60]!r}; tokens as they are '
      'would be rasp.Map(lambda x: x, rasp.tokens).'
    )
  for token in (BOS, PAD, None):
    if token in vocab:
      raise ValueError(
        f'vocab must leave {token!r} to the compiler, got it among the tokens; '
        'rename it.'
      )
  if not vocab:
    raise ValueError('vocab must have a token, got none; give e.g. {1, 2, 3}.')
  if type(max_length) is not int or max_length < 1:
    raise ValueError(
      f'max_length must be a whole number of at least 1, got {max_length!r}; '
      'give e.g. 5.'
    )


def convert(
  assembled: Any,
  program: Any,
  name: str = 'program',
  unique_tokens: bool = False,
) -> CompiledProgram:
  """Turns what Tracr has compiled into a model with equal outputs.

  The model is compared with Tracr's own and with RASP's interpreter on all
  inputs, or on a sample where there are many: `agreement.inputs_to_compare`.

  Args:
    assembled: an `AssembledTransformerModel`, as `compile_rasp_to_model` gives
      it for `program`.
    program: the expression it was compiled from; true edges are its reads.
    name: of the program.
    unique_tokens: whether it is defined only without repeated tokens.

  Raises:
    ValueError: if the program is not the one that was compiled, the model has
      norms or another activation than relu, two of its values read the same
      (1 and '1'), or it is not the program on every input.
  """
  from tracr.rasp import causal_eval

  layout = layout_of(assembled, program)
  config = _config(assembled, layout)
  params = convert_params(config, assembled.params, layout.order, layout.output)
  channels = tuple(layout.names)
  writers = dict(zip(channels, first_writers(config, params), strict=True))
  producers = {}
  for label, own in layout.expressions.items():
    written = [writers[channel] for channel in own if writers.get(channel)]
    producers.update({label: written[0]} if written else {})
  producers.update(tokens=EMBED, indices=EMBED)
  max_length = config.context_length - 1
  examples = draw_inputs(
    layout.vocab, max_length, _EXAMPLES, 0, unique=unique_tokens
  )
  compared = agreement.inputs_to_compare(
    layout.vocab, max_length, unique_tokens
  )
  both = Sequences(
    *(np.concatenate(arrays) for arrays in zip(examples, compared, strict=True))
  )
  outputs = reference_outputs(assembled, program, both)
  converted = CompiledProgram(
    name=name,
    config=config,
    params=params,
    vocab=layout.vocab,
    output_kind='categorical' if layout.categorical else 'numerical',
    output_values=layout.output_values,
    unique_tokens=unique_tokens,
    channels=channels,
    edges=frozenset(true_edges(layout.graph, program, producers)),
    examples=Examples(*examples, outputs[: len(examples.lengths)]),
  )
  meaning = program
  if config.causal:
    meaning = functools.partial(causal_eval.evaluate, program)
  agreement.check(
    converted, compared, outputs[len(examples.lengths) :], meaning
  )
  return converted


def reference_outputs(
  assembled: Any, program: Any, inputs: Sequences
) -> Float[np.ndarray, 'count time outputs']:
  """Outputs of Tracr's own model, before any argmax, 0 behind a length."""
  output = layout_of(assembled, program).output
  count, time = inputs.tokens.shape
  forward = jax.jit(assembled.forward)
  result = np.zeros((count, time, len(output)), np.float32)
  for length in np.unique(inputs.lengths):
    chosen = inputs.lengths == length
    # Tracr's attention knows no padding.
    tokens = jnp.asarray(inputs.tokens[chosen, :length])
    stream = forward(assembled.params, tokens).transformer_output.output
    result[chosen, :length] = np.asarray(stream)[..., output]
  return result


def _config(assembled, layout):
  theirs = assembled.model_config
  # Their activation is a function; what counts is what it does.
  probe = np.asarray(theirs.activation_function(jnp.array([-1.0, 0.5])))
  if theirs.layer_norm or not np.array_equal(probe, [0, 0.5]):
    raise ValueError(
      'assembled must be a model without norms whose activation is relu, got '
      'another; compile it with compile_rasp_to_model.'
    )
  return GPTConfig(
    vocab_size=len(layout.vocab),
    n_layer=theirs.num_layers,
    d_model=len(layout.names),
    d_head=theirs.key_size,
    n_head=theirs.num_heads,
    d_mlp=theirs.mlp_hidden_size,
    context_length=assembled.params['pos_embed']['embeddings'].shape[0],
    norm='none',
    activation='relu',
    activation_density=None,
    bigram_table=False,
    position='added',
    causal=theirs.causal,
    d_output=len(layout.output),
  )
