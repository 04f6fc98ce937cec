"""The true edges of a program: which component has to read which.

Tracr turns a program into a graph of expressions and every expression into a
head, an MLP, or (selector widths) one of each. Edges follow from what an
expression reads. A read is an edge only if no constant in its place would
leave all outputs as they are:

- a function or predicate that ignores one of its arguments (as `Select` with
  TRUE ignores both) does not read it, nor what only leads to it;
- the constant channel `one` is not read;
- an aggregate that ignores its keys still tells them from BOS, which it must
  not average in, unless its readers only ask whether the result is 0;
- what a categorical aggregate is without anything selected is undefined; so
  BOS, which stands for that default, is a key only of numerical aggregates
  that may select nothing;
- a selector width counts the selected keys against BOS: it reads BOS as value
  and, unless it selects everything, as key;
- its MLP reads BOS in order to clear the count there, which makes a difference
  only where a later head would select the count of 0 at BOS.

All of tokens, indices and BOS are written by 'embed'.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparse_interp.ground_truth.compiled.components import Edge

EMBED = 'embed'
SHARE = '_selector_width_attn_output'


def true_edges(graph: Any, tip: Any, writers: Mapping[str, str]) -> set[Edge]:
  """Edges that a program needs.

  Args:
    graph: expressions (a networkx graph of Tracr, bases inferred).
    tip: the RASP expression whose value is the output.
    writers: {label of an expression: component that writes its value}, and
      {label + SHARE: head} for selector widths. Expressions that are absent
      are always 0.

  Returns:
    (writer, reader) pairs.
  """
  return _Reads(graph, writers).edges_of(tip)


class _Reads:
  """A walk from the output to all expressions that it depends on."""

  def __init__(self, graph, writers):
    self.graph, self.writers = graph, writers
    self.edges, self.seen = set(), set()
    self.keys, self.widths = [], []  # (keys, predicate, queries), expressions

  def edges_of(self, tip):
    self.read(tip, 'output')
    for width, (keys, predicate, queries) in itertools.product(
      self.widths, self.keys
    ):
      left = self.value_at_bos(keys, width)
      selected = (_safely(predicate, left, q) for q in self.values(queries))
      if left is not None and any(selected):
        self.edges.add((EMBED, self.writers[width.label]))
    return self.edges

  def values(self, expression) -> list:
    """All values that an expression may have."""
    return list(self.graph.nodes[expression.label]['VALUE_SET'])

  def read(self, expression, reader):
    """Notes that a component reads an expression, and follows it."""
    if expression.label in self.writers:
      self.edges.add((self.writers[expression.label], reader))
      self.visit(expression)

  def visit(self, expression):
    from tracr.rasp import rasp

    if expression.label in self.seen:
      return
    self.seen.add(expression.label)
    writer = self.writers[expression.label]
    if isinstance(expression, rasp.Map):
      self.read_arguments(expression.f, [expression.inner], writer)
    elif isinstance(expression, rasp.LinearSequenceMap):
      if expression.fst_fac:
        self.read(expression.fst, writer)
      if expression.snd_fac:
        self.read(expression.snd, writer)
    elif isinstance(expression, rasp.SequenceMap):
      arguments = [expression.fst, expression.snd]
      self.read_arguments(expression.f, arguments, writer)
    elif isinstance(expression, rasp.Aggregate):
      self.visit_aggregate(expression, writer, rasp.is_numerical(expression))
    elif isinstance(expression, rasp.SelectorWidth):
      self.visit_width(expression, writer)

  def read_arguments(self, function, arguments, reader):
    """Reads those arguments on which a function depends."""
    if len({a.label for a in arguments}) < len(arguments):
      # x and x again: a function of one argument.
      function = lambda x, f=function: f(x, x)  # noqa: E731
      arguments = arguments[:1]
    sets = [self.values(argument) for argument in arguments]
    for i, argument in enumerate(arguments):
      if depends(function, sets, i):
        self.read(argument, reader)

  def visit_selector(self, selector, head):
    """Reads keys and queries; returns the predicate's table by query."""
    keys, queries = selector.keys, selector.queries
    sets = [self.values(keys), self.values(queries)]
    for i, (side, reader) in enumerate(((keys, 'k'), (queries, 'q'))):
      if depends(selector.predicate, sets, i):
        self.read(side, f'{head}.{reader}')
        if reader == 'k':
          self.keys.append((keys, selector.predicate, queries))
    return [[selector.predicate(k, q) for k in sets[0]] for q in sets[1]]

  def visit_aggregate(self, expression, head, numerical):
    selector = expression.selector
    self.read(expression.sop, f'{head}.v')
    table = self.visit_selector(selector, head)
    keys, queries = selector.keys, selector.queries
    finds_itself = keys.label == queries.label and all(
      selector.predicate(x, x) for x in self.values(keys)
    )
    everything = all(all(row) for row in table)
    if any(map(any, table)) and not self.forgives_scale(expression, numerical):
      self.read(keys, f'{head}.k')
    if numerical and not (everything or finds_itself):
      self.edges.add((EMBED, f'{head}.k'))

  def forgives_scale(self, expression, numerical):
    """Whether all that reads a number asks only whether it is 0."""
    from tracr.rasp import rasp

    values = [v for v in self.values(expression) if v]
    readers = [
      self.graph.nodes[label]['EXPR']
      for label in self.graph.successors(expression.label)
    ]
    return bool(numerical and readers) and all(
      isinstance(reader, rasp.Map) and not depends(reader.f, [values], 0)
      for reader in readers
    )

  def visit_width(self, expression, writer):
    head = self.writers[expression.label + SHARE]
    self.edges |= {(head, writer), (EMBED, f'{head}.v')}
    self.widths.append(expression)
    table = self.visit_selector(expression.selector, head)
    if not all(all(row) for row in table):
      self.edges.add((EMBED, f'{head}.k'))

  def value_at_bos(self, expression, width):
    """Value at BOS if `width` were left as the count 0 there; None: none."""
    from tracr.rasp import rasp

    if expression.label == width.label:
      return 0 if rasp.is_categorical(width) else None
    if isinstance(expression, rasp.Map):
      inputs = [expression.inner]
    elif isinstance(expression, rasp.SequenceMap):
      inputs = [expression.fst, expression.snd]
    elif isinstance(expression, rasp.Aggregate):
      # At BOS nothing is selected, and attention goes to BOS.
      return self.value_at_bos(expression.sop, width)
    else:
      return None
    values = [self.value_at_bos(part, width) for part in inputs]
    return None if None in values else _safely(expression.f, *values)


def depends(
  function: Callable[..., Any], sets: Sequence[Sequence[Any]], i: int
) -> bool:
  """Whether a function of values in these sets depends on argument i."""
  results = {}
  for arguments in itertools.product(*sets):
    others = arguments[:i] + arguments[i + 1 :]
    result = _safely(function, *arguments)
    if results.setdefault(others, result) != result:
      return True
  return False


def _safely(function, *arguments):
  """The function's value, None where Tracr takes it for undefined."""
  try:
    return function(*arguments)
  except ArithmeticError:
    return None
