"""What `strength` comes to: means and ratios over tasks, and how they read."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse_interp.benchmarks import together
from sparse_interp.circuits.selecting import sweep

METHODS = (
  'nodes',
  'nodes_eliminated',
  'edges_bisected',
  'edges',
  'attribution',
)

FORMULAS = {
  'edges': 'nonzero weights between kept nodes; with edge masks, kept weights',
  'test_loss': 'two-way cross-entropy in nats at the last token, mean over '
  'both sides and all test pairs, what is removed at its mean over pretraining '
  'text, logits scaled and shifted as fitted on training pairs',
  'geometric mean': 'of edges over tasks; a circuit without edges counts as 1',
  'ratio': 'geometric mean over tasks of the ratio of edges',
}


def conclusions(tasks: Mapping[str, Any]) -> dict[str, Any]:
  """Geometric means and ratios over the tasks that were pruned."""
  pruned = {
    n: task['circuits'] for n, task in tasks.items() if 'circuits' in task
  }

  def edges(method, names):
    return [max(pruned[name][method]['edges'], 1) for name in names]

  def ratio(one, other, names):
    if not names:
      return None
    logs = np.log(edges(one, names)) - np.log(edges(other, names))
    return float(np.exp(logs.mean()))

  def reaching(*methods):
    return [
      name
      for name, circuits in pruned.items()
      if all(circuits[method]['reaches_target'] for method in methods)
    ]

  every = list(pruned)
  ratios = {}
  for name, one, other in (
    ('edges_over_nodes', 'edges', 'nodes'),
    ('edges_over_nodes_eliminated', 'edges', 'nodes_eliminated'),
    ('edges_over_attribution', 'edges', 'attribution'),
    ('nodes_over_attribution', 'nodes', 'attribution'),
  ):
    both = reaching(one, other)
    ratios[name] = {
      'ratio': ratio(one, other, every),
      'tasks': len(every),
      'ratio_where_both_reach_the_target': ratio(one, other, both),
      'tasks_where_both_reach_the_target': len(both),
    }
  means = {m: sweep.geometric_mean(edges(m, every)) for m in METHODS}
  curves = {
    method: sweep.geometric_means(
      {n: tasks[n]['curves'][method] for n in every}
    )
    for method in ('edges', 'attribution')
  }
  gain = {
    gates: {
      name: tasks[name]['search'][gates]['best_edges']
      / max(tasks[name]['search'][gates]['default_edges'], 1)
      for name in every
    }
    for gates in ('nodes', 'edges')
  }
  for found in gain.values():
    logs = np.log(np.maximum(list(found.values()), 1e-9))
    found['geometric_mean'] = float(np.exp(logs.mean())) if every else None
  return {
    'geometric_mean_edges': means,
    'ratios': ratios,
    'search_gain': gain,
    'sweep': curves,
    'not_pruned': {
      n: task['not_pruned'] for n, task in tasks.items() if n not in pruned
    },
  }


def line(name: str, task: Mapping[str, Any]) -> str:
  """Edges and test loss by method."""
  if 'not_pruned' in task:
    return f'{name:<28} not pruned: {task["not_pruned"]}'
  shown = [
    f'{method} {task["circuits"][method]["edges"]} '
    f'({task["circuits"][method]["test_loss"]:.3f})'
    for method in METHODS
  ]
  return f'{name:<28} ' + ', '.join(shown)


def print_summary(summary: Mapping[str, Any]) -> None:
  """Prints what the run came to."""
  for name, task in summary['tasks'].items():
    print(line(name, task))
  for method, mean in summary['geometric_mean_edges'].items():
    print(f'geometric mean of edges, {method:<18} {mean:.1f}')
  for name, found in summary['ratios'].items():
    print(f'{name:<30} {found["ratio"]:.3f} over {found["tasks"]} tasks')
  for gates, found in summary['search_gain'].items():
    print(
      f'edges of the best trial over those of the defaults, {gates}: '
      f'{found["geometric_mean"]:.2f}'
    )
  for point in summary['sweep']['edges']:
    print(f'edges at target {point["target"]}: {point["edges"]}')
  for name, found in summary['together'].items():
    print(together.line(name, found))
  print('largest logit difference', summary['agreement'])
