"""Which channel of a model of Tracr stands for which value of a program."""

import collections
from typing import Any, NamedTuple

from sparse_interp.ground_truth.compiled.craft_graph import SHARE
from sparse_interp.ground_truth.compiled.labels import ONE
from sparse_interp.ground_truth.compiled.program import Value
from sparse_interp.tasks.compiled import BOS, PAD


class Layout(NamedTuple):
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


def layout_of(assembled: Any, program: Any) -> Layout:
  """Matches a program with what Tracr has compiled it into.

  Args:
    assembled: an `AssembledTransformerModel`.
    program: the expression it was compiled from.

  Raises:
    ValueError: if it was compiled from another, or two of its values read the
      same, so that channels cannot be told apart.
  """
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
  if len(places) < len(assembled.residual_labels):
    counts = collections.Counter(assembled.residual_labels)
    twice = counts.most_common(1)[0][0]
    raise ValueError(
      'program must have values that no other reads like, got two of '
      f"{twice!r}, as 1 and '1' would be; change one of them."
    )
  sink = extracted.sink['OUTPUT_BASIS']
  for old in [*places, *map(str, sink)]:
    if old not in renamed or old not in places:
      raise ValueError(
        'program must be the one that was compiled, got another: it and the '
        f'model do not share the channel {old!r}; pass the same expression.'
      )
  names = {new: places[old] for old, new in renamed.items() if old in places}
  categorical = rasp.is_categorical(program)
  return Layout(
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
