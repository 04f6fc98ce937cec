"""What every method finds of a compiled program, against three truths.

  components       edges between components that the program needs, from the
                   graph it was compiled from (`compiled.craft_graph`)
  paths            weights on a path from the input to the output
  greedy_zero,     component edges that greedy removal keeps under that
  greedy_resample  ablation, on training sequences of all lengths

The first and the last are about pairs of components, the second about single
weights: a circuit is small, so that it holds few of all weights on paths.
AUROC is that of the ranking, over all pairs of components with the writer
before the reader, or over all nonzero weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.recovery import auroc, set_scores
from sparse_interp.ground_truth import compiled_circuits
from sparse_interp.ground_truth.compiled.paths import path_weights
from sparse_interp.ground_truth.compiled.program import CompiledProgram
from sparse_interp.ground_truth.compiled_circuits import METHODS
from sparse_interp.tasks.compiled import draw_inputs

GREEDY = ('zero', 'resample')

# What ACDC's Tracr test keeps under zero ablation (arXiv 2304.14997), and what
# is left under resample ablation, as others measured it (auto-circuit).
PUBLISHED = {
  'frac_prevs': {
    'zero': 'embed>m0 m0>a1.h0.v embed>a1.h0.q embed>a1.h0.k a1.h0>output',
    'resample': 'embed>m0 m0>a1.h0.v a1.h0>output',
  },
  'reverse': {
    'zero': 'a3.h0>output m2>a3.h0.q embed>a3.h0.k embed>a3.h0.v m1>m2 m0>m1 '
    'embed>m1 a0.h0>m0 embed>m0 embed>a0.h0.v',
    'resample': 'embed>a3.h0.v a3.h0>output',
  },
}
# Length of all sequences in that test, without BOS: with lengths that vary,
# resampling finds out that the length matters.
PUBLISHED_LENGTH = 3


def method_names(methods: str | Sequence[str]) -> list[str]:
  """Methods by their names, in a list or with commas between.

  Raises:
    ValueError: if one is unknown, or there is none.
  """
  if isinstance(methods, str):
    methods = [name.strip() for name in methods.split(',') if name.strip()]
  for method in methods:
    if method not in METHODS:
      raise ValueError(
        f'methods must be among {", ".join(METHODS)}, got {method!r}; choose '
        'some of these.'
      )
  if not methods:
    raise ValueError(
      f'methods must be some of {", ".join(METHODS)}, got none; choose some.'
    )
  return list(methods)


def score_program(
  program: CompiledProgram,
  configs: Mapping[str, PruneConfig],
  methods: Sequence[str] = tuple(METHODS),
  seed: int = 0,
  sequences: int = 256,
  say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Runs every method on a program and compares what it finds with the truth.

  Args:
    program: any compiled program.
    configs: {'edges': hyper-parameters, 'nodes': hyper-parameters}; baselines
      share their target with the masks.
    methods: of METHODS.
    seed: of sequences, gates, batches and random rankings.
    sequences: at most so many for training, and for testing.
    say: gets a line for every method.

  Returns:
    {'edge_f1': F1 of edge masks against `components`, None without them,
    'greedy': {ablation: {...}}, 'scores': [row, ...]}; every row names truth,
    method, gates, ablation, target, seed and split.

  Raises:
    ValueError: if a method is unknown.
  """
  method_names(methods)
  train, test = (
    compiled_circuits.recorded(program, program.draw(sequences, seed, split))
    for split in ('train', 'test')
  )
  greedy = {
    ablation: compiled_circuits.greedy_edges(program, train, ablation)
    for ablation in GREEDY
  }
  truths = _truths(program, greedy)
  common = {'program': program.name, 'seed': seed}
  rows = [
    common | row
    for ablation, scores in greedy.items()
    for row in _greedy_rows(ablation, scores, truths)
  ]
  model = compiled_circuits.gate(program, train, configs['edges'].ablation)
  edge_f1 = None
  for method in methods:
    config = configs[METHODS[method]]
    found = compiled_circuits.find_circuit(
      program, method, model, train, test, config, seed
    )
    new = [common | row for row in _method_rows(method, found, config, truths)]
    say(row_line(new[0]))
    rows += new
    if method == 'edge_masks':
      edge_f1 = new[0]['f1']
  return {
    'edge_f1': edge_f1,
    'greedy': published_greedy(program, seed),
    'scores': rows,
  }


def _greedy_rows(ablation, scores, truths):
  """Greedy removal as a method, against the components."""
  kept = compiled_circuits.greedily_kept(scores)
  yield {
    'method': f'greedy_{ablation}',
    'gates': 'component edges',
    'ablation': ablation,
    'target': compiled_circuits.PUBLISHED_TOLERANCE,
    'split': 'found on train',
    'test_loss': None,
    **_compare('components', truths, kept, scores),
  }


def _method_rows(method, found, config, truths):
  """One row for every truth, the components first."""
  for truth in truths:
    of_weights = truth == 'paths'
    kept = found.weights if of_weights else found.edges
    scores = found.weight_scores if of_weights else found.edge_scores
    yield {
      'method': method,
      'gates': METHODS[method],
      'ablation': config.ablation,
      'target': config.target_loss,
      'split': 'found on train, test_loss on test',
      'test_loss': found.test_loss,
      'weights': len(found.weights),
      **_compare(truth, truths, kept, scores),
    }


def _truths(program, greedy):
  paths = {
    (name, int(row), int(column))
    for name, mask in path_weights(program.config, program.params).items()
    for row, column in zip(*np.nonzero(mask), strict=True)
  }
  kept = {
    f'greedy_{ablation}': compiled_circuits.greedily_kept(scores)
    for ablation, scores in greedy.items()
  }
  return {'components': set(program.edges), 'paths': paths, **kept}


def _compare(truth, truths, kept, scores):
  """The part of a row that depends on the truth."""
  wanted = truths[truth]
  row = {
    'truth': truth,
    **set_scores(kept, wanted),
    'auroc': auroc(
      np.array(list(scores.values())), np.array([e in wanted for e in scores])
    ),
    'found': len(kept),
    'true': len(wanted),
  }
  if truth != 'paths':
    row['missed'] = sorted('>'.join(edge) for edge in wanted - kept)
    row['extra'] = sorted('>'.join(edge) for edge in kept - wanted)
  return row


def published_greedy(
  program: CompiledProgram, seed: int, sequences: int = 64
) -> dict[str, dict[str, Any]]:
  """Greedy removal in the setup of ACDC's Tracr test, one length throughout.

  Returns:
    {ablation: {'edges', 'count', 'length', 'matches_published'}}; the last is
    None where nothing was published.
  """
  length = min(PUBLISHED_LENGTH, program.max_length)
  inputs = draw_inputs(
    program.vocab,
    program.max_length,
    sequences,
    seed,
    lengths=[length],
    unique=program.unique_tokens,
  )
  data = compiled_circuits.recorded(program, inputs)
  result = {}
  for ablation in GREEDY:
    scores = compiled_circuits.greedy_edges(program, data, ablation)
    edges = {'>'.join(e) for e in compiled_circuits.greedily_kept(scores)}
    published = PUBLISHED.get(program.name, {}).get(ablation)
    result[ablation] = {
      'edges': sorted(edges),
      'count': len(edges),
      'length': length,
      'matches_published': published and edges == set(published.split()),
    }
  return result


def row_line(row: Mapping[str, Any]) -> str:
  """One row as text."""
  ranking = '  -  ' if row['auroc'] is None else f'{row["auroc"]:.3f}'
  line = (
    f'{row["program"]:<16} {row["method"]:<15} {row["truth"]:<15} '
    f'{row["ablation"]:<9} P {row["precision"]:.3f}  R {row["recall"]:.3f}  '
    f'F1 {row["f1"]:.3f}  AUROC {ranking}'
  )
  for name in ('missed', 'extra'):
    if row.get(name):
      line = f'{line}  {name} {", ".join(row[name])}'
  return line
