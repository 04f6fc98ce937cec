"""Programs compiled with Tracr (arXiv 2301.05062) as models of ours.

Tracr orders residual channels and neurons by names that count the expressions
a process has made so far. Here names and orders depend on the program alone.
"""

import importlib.util
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sparse_interp.interop.components import first_writers
from sparse_interp.interop.craft_graph import EMBED, SHARE, true_edges
from sparse_interp.interop.labels import ONE
from sparse_interp.interop.program import CompiledProgram, Examples, Value
from sparse_interp.interop.tracr_params import convert_params
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
  """Compiles a RASP program.

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
    NotImplementedError: if Tracr cannot compile the program.
  """
  try:
    from tracr.compiler import compiling
  except ImportError as error:
    raise ImportError(
      f'Tracr must be installed to compile programs ({error}); run pip install '
      "-e '.[tracr]'."
    ) from None
  assembled = compiling.compile_rasp_to_model(
    program,
    set(vocab),
    max_length,
    causal=causal,
    compiler_bos=BOS,
    compiler_pad=PAD,
  )
  return convert(assembled, program, name, unique_tokens)


def convert(
  assembled: Any,
  program: Any,
  name: str = 'program',
  unique_tokens: bool = False,
) -> CompiledProgram:
  """Turns what Tracr has compiled into a model with equal outputs.

  Args:
    assembled: an `AssembledTransformerModel`, as `compile_rasp_to_model` gives
      it for `program`.
    program: the expression it was compiled from; true edges are its reads.
    name: of the program.
    unique_tokens: whether it is defined only without repeated tokens.

  Raises:
    ValueError: if the program is not the one that was compiled, or the model
      has norms or another activation than relu.
  """
  layout = _layout(assembled, program)
  config = _config(assembled, layout)
  params = convert_params(config, assembled.params, layout.order, layout.output)
  channels = tuple(layout.names)
  writers = dict(zip(channels, first_writers(config, params), strict=True))
  producers = {}
  for label, own in layout.expressions.items():
    written = [writers[channel] for channel in own if writers.get(channel)]
    producers.update({label: written[0]} if written else {})
  producers.update(tokens=EMBED, indices=EMBED)
  inputs = draw_inputs(
    layout.vocab, config.context_length - 1, _EXAMPLES, 0, unique=unique_tokens
  )
  return CompiledProgram(
    name=name,
    config=config,
    params=params,
    vocab=layout.vocab,
    output_kind='categorical' if layout.categorical else 'numerical',
    output_values=layout.output_values,
    unique_tokens=unique_tokens,
    channels=channels,
    edges=frozenset(true_edges(layout.graph, program, producers)),
    examples=Examples(*inputs, reference_outputs(assembled, program, inputs)),
  )


def reference_outputs(
  assembled: Any, program: Any, inputs: Sequences
) -> Float[np.ndarray, 'count time outputs']:
  """Outputs of Tracr's own model, before any argmax, 0 behind a length."""
  output = _layout(assembled, program).output
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


class _Layout(NamedTuple):
  """Names and places that the program alone determines.

  Attributes:
    graph: its expressions with their values.
    vocab: token of every id.
    names: residual channels by our names, in our order.
    order: where each of them is in Tracr's model.
    expressions: {Tracr's label of an expression: our names of its channels}.
    output: residual channels of the output, in Tracr's model.
    output_values: what they stand for; () for a number.
    categorical: whether the output is one of these values.
  """

  graph: Any
  vocab: tuple[Value, ...]
  names: list[str]
  order: list[int]
  expressions: dict[str, list[str]]
  output: list[int]
  output_values: tuple[Value, ...]
  categorical: bool


def _layout(assembled, program):
  from tracr.compiler import basis_inference, rasp_to_graph
  from tracr.rasp import rasp

  encoder = assembled.input_encoder
  special = {encoder.bos_token: BOS, encoder.pad_token: PAD}
  tokens = list(encoder.encoding_map)
  extracted = rasp_to_graph.extract_rasp_graph(program)
  positions = assembled.params['pos_embed']['embeddings'].shape[0] - 1
  basis_inference.infer_bases(
    extracted.graph, extracted.sink, set(tokens) - set(special), positions
  )
  renamed = {f'tokens:{t}': f'tokens:{special.get(t, t)}' for t in tokens}
  renamed |= {f'indices:{i}': f'indices:{i}' for i in range(positions)}
  renamed[ONE] = ONE
  taken, expressions = {'tokens', 'indices', ONE}, {}
  # What is read comes before what reads it, roughly.
  for label, node in reversed(list(extracted.graph.nodes.items())):
    expression = node['EXPR']
    if label in ('tokens', 'indices') or not isinstance(expression, rasp.SOp):
      continue
    name = _new_name(expression.name, taken)
    own = {}
    for direction in node['OUTPUT_BASIS']:
      value = '' if direction.value is None else f':{direction.value}'
      own[str(direction)] = name + value
    expressions[label] = list(own.values())
    if isinstance(expression, rasp.SelectorWidth):
      own[label + SHARE] = name + SHARE
      expressions[label + SHARE] = [name + SHARE]
    renamed |= own
  places = {old: i for i, old in enumerate(assembled.residual_labels)}
  sink = extracted.sink['OUTPUT_BASIS']
  for old in [*places, *map(str, sink)]:
    if old not in renamed or old not in places:
      raise ValueError(
        'program must be the one that was compiled, got another: it and the '
        f'model do not share the channel {old!r}; pass the same expression.'
      )
  names = {new: places[old] for old, new in renamed.items() if old in places}
  categorical = rasp.is_categorical(program)
  return _Layout(
    graph=extracted.graph,
    vocab=tuple(special.get(t, t) for t in tokens),
    names=list(names),
    order=list(names.values()),
    expressions=expressions,
    output=[places[str(direction)] for direction in sink],
    output_values=tuple(d.value for d in sink) if categorical else (),
    categorical=categorical,
  )


def _new_name(name, taken):
  """The name, or name_2, name_3, ... if it is taken."""
  count, new = 1, name
  while new in taken:
    count += 1
    new = f'{name}_{count}'
  taken.add(new)
  return new


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
