"""A workdir as a run leaves it, made up with numpy: for tests of the report."""

import json
import pathlib

import numpy as np

from sparse_interp.files import sealed

# What could break a page: the end of a script, quotes, markup, a lone
# surrogate, right-to-left text, control and non-BMP characters.
NASTY = (
  '</script><script>document.title="owned"</script>',
  '"\'`${x}{{data}}',
  '<!--',
  '\ud800',
  'שלום',
  '\x00\u2028',
  '🙂',
)

_PROGRAM = (
  '<|endoftext|>|def| load|(|path|,| mode|):|\n   | name| =| path|.|strip|()|\n'
  '   | count| =| len|(|name|)|\n   | if| count| >| |3|:|\n       | return| '
)


def make_workdir(
  folder: pathlib.Path,
  circuits: dict[str, int] | None = None,
  nasty: bool = False,
  steps: int = 600,
) -> pathlib.Path:
  """Writes summary.json, metrics.jsonl and circuits/ into a folder.

  Args:
    folder: made if it does not exist.
    circuits: {task: about how many nodes}; {} for a run that found none.
    nasty: put hostile text where text of others can stand.
    steps: rows of metrics, of at most 4000.
  """
  rng = np.random.default_rng(0)
  circuits = {'set_or_string': 40} if circuits is None else circuits
  folder.mkdir(parents=True, exist_ok=True)
  tasks = {}
  for name, n_nodes in circuits.items():
    tasks[name] = write_circuit(
      folder / 'circuits' / name, name, n_nodes, nasty
    )
  tasks['bracket_counting'] = {
    'full_loss': 0.4131,
    'full_loss_interval': [0.381, 0.447],
    'full_conditions': {'list': 0.391, 'call': 0.436},
    'learned': False,
  }
  tasks['while_return'] = {
    'full_loss': 0.0814,
    'full_loss_interval': [0.07, 0.094],
    'full_conditions': {'return': 0.07, 'break': 0.09},
    'learned': True,
    'not_pruned': 'no k up to 3072 nodes reaches the target loss of 0.15',
  }
  tasks['lambda_colon'] = {
    'learned': False,
    'unposable': 'answers " a" and " ab" start with the same token'
    + (NASTY[0] if nasty else ''),
  }
  _write_metrics(folder / 'metrics.jsonl', rng, steps)
  sealed.write_json(folder / 'summary.json', _summary(tasks))
  return folder


def _summary(tasks):
  return {
    'asked': {
      'config': {
        'run': 'quickstart',
        'data': {'corpora': [['idioms', 1.0]]},
        'model': {'d_model': 64, 'n_layer': 2},
        'prune': {'target_loss': 0.15, 'target_on': 'task'},
      },
      'seed': 0,
    },
    'corpus_hash': '5f1c0a77d2',
    'tokenizer_hash': 'b1946ac924',
    'code_version': '0.1.0+3b1f9d2',
    'device': 'cpu (2 cores)',
    'wall_seconds': 803.2,
    'tasks': tasks,
    'target_loss': 0.15,
    'target_on': 'task',
    'learned_tasks': [n for n, task in tasks.items() if task['learned']],
    'geometric_mean_edges': 41.73205080756888,
    'nonzeros': {
      'h_0/attn/c_attn/kernel': {'asked': 768, 'found': 768, 'size': 12288},
      'h_0/mlp/c_fc/kernel': {'asked': 1024, 'found': 1024, 'size': 16384},
      'ln_f/scale': {'asked': 64, 'found': 64, 'size': 64},
    },
    'formulas': {
      'task_loss': 'two-way cross-entropy at the last token, mean of both sides'
    },
  }


def _write_metrics(path, rng, steps):
  rows = []
  for step in np.linspace(1, 4000, steps).astype(int).tolist():
    density = max(1 / 16, 1 - step / 2000)
    row = {
      'step': step,
      'train_loss': 2.1 + 5.5 * np.exp(-step / 500) + 0.12 * rng.normal(),
      'learning_rate': 0.0128
      * min(1, step / 100)
      * (1 - step / 4200)
      * (1 / 16 / density) ** 0.5,
      'density': density,
      'gradient_rms': 0.01,
      'dead_neurons': int(200 * min(1, step / 3000)),
      'dead_attention_channels': int(31 * min(1, step / 3500)),
      'tokens_per_second': 41000.0,
    }
    if len(rows) % 10 == 0:
      row['validation_loss'] = 2.2 + 5.5 * np.exp(-step / 500)
    rows.append(json.dumps(row))
  path.write_text('\n'.join(rows) + '\n')


def write_circuit(directory, task, n_nodes, nasty=False):
  """Writes circuit.json and circuit.npz; returns the task's summary entry."""
  rng = np.random.default_rng(n_nodes)
  layers = 1 if n_nodes < 12 else 2 if n_nodes < 80 else 4
  d_model, d_attn, d_mlp = 64, 64, 256
  sites = _sites(layers, d_model, d_attn, d_mlp)
  nodes = _nodes(rng, sites, n_nodes, layers, d_model)
  edges = _edges(rng, nodes, layers)
  names = [name for name, _ in sites]
  examples = _examples(rng, task, nasty)
  length = max(len(example['pieces']) for example in examples)
  arrays = {
    'edges/source_site': np.array([names.index(e[0]) for e in edges], np.int32),
    'edges/source': np.array([e[1] for e in edges], np.int32),
    'edges/target_site': np.array([names.index(e[2]) for e in edges], np.int32),
    'edges/target': np.array([e[3] for e in edges], np.int32),
    'edges/weight': rng.normal(0, 0.6, len(edges)).astype(np.float32),
    'examples/tokens': np.zeros((len(examples), length), np.int32),
  }
  for site, width in sites:
    arrays[f'mean/{site}'] = rng.normal(0, 0.1, width).astype(np.float32)
    arrays[f'score/{site}'] = rng.uniform(-1, 1, width).astype(np.float32)
    shape = (len(examples), length, len(nodes[site]))
    values = rng.normal(0, 1, shape) * (rng.random(shape) < 0.25)
    if nodes[site]:
      arrays[f'activation/{site}'] = values.astype(np.float32)
  entry = {
    'nodes': sum(map(len, nodes.values())),
    'edges': len(edges),
    'test_loss': 0.1432,
    'test_loss_interval': [0.128, 0.149],
    'raw_loss': 0.5812,
    'raw_loss_interval': [0.571, 0.592],
    'scale': 1.31,
    'shift': -0.04,
    'necessity_loss': 2.4133,
    'necessity_loss_interval': [2.1, 2.8],
    'random_loss': 0.7121,
    'random_loss_interval': [0.68, 0.75],
  }
  document = _document(task, sites, nodes, entry, examples)
  directory.mkdir(parents=True)
  (directory / 'circuit.json').write_text(json.dumps(document))
  np.savez(directory / 'circuit.npz', **arrays)
  return {
    'full_loss': 0.0421,
    'full_loss_interval': [0.031, 0.055],
    'full_conditions': {'assign': 0.038, 'call': 0.046},
    'learned': True,
    'circuit': entry,
  }


def _sites(layers, d_model, d_attn, d_mlp):
  sites = []
  for layer in range(layers):
    sites.append([f'{layer}.attn.act_in', d_model])
    sites += [[f'{layer}.attn.{name}', d_attn] for name in 'qkv']
    sites.append([f'{layer}.attn.resid_delta', d_model])
    sites.append([f'{layer}.mlp.act_in', d_model])
    sites.append([f'{layer}.mlp.post_act', d_mlp])
    sites.append([f'{layer}.mlp.resid_delta', d_model])
  return [*sites, ['final_resid', d_model]]


def _nodes(rng, sites, n_nodes, layers, d_model):
  """Picks channels; the residual sites share some, as real circuits do."""
  each = max(1, round(n_nodes / (8 * layers + 1)))
  common = rng.choice(d_model, min(d_model, 2 * each + 1), replace=False)
  nodes, left = {}, n_nodes
  for site, width in sites:
    in_stream = site.endswith(('act_in', 'resid_delta', 'final_resid'))
    count = int(np.clip(each + rng.integers(-1, 2), 0 if left < 2 else 1, left))
    pool = common if in_stream else np.arange(width)
    picked = rng.choice(pool, min(count, len(pool)), replace=False)
    nodes[site] = sorted(int(channel) for channel in picked)
    left -= len(nodes[site])
  return nodes


def _edges(rng, nodes, layers):
  edges = []
  for layer in range(layers):
    for source, target in (
      ('attn.act_in', 'attn.q'),
      ('attn.act_in', 'attn.k'),
      ('attn.act_in', 'attn.v'),
      ('attn.v', 'attn.resid_delta'),
      ('mlp.act_in', 'mlp.post_act'),
      ('mlp.post_act', 'mlp.resid_delta'),
    ):
      a, b = f'{layer}.{source}', f'{layer}.{target}'
      for i in nodes[a]:
        for j in nodes[b]:
          if rng.random() < 1.6 / max(1, len(nodes[a])) ** 0.7:
            edges.append((a, i, b, j))
  return edges


def _document(task, sites, nodes, entry, examples):
  return {
    'schema_version': 1,
    'task': task,
    'description': 'After a variable was bound to set() or to a string, '
    'choose .add or += for it.',
    'model': {'d_model': 64, 'd_head': 16, 'n_layer': 2},
    'sites': sites,
    'nodes': nodes,
    'node_count': entry['nodes'],
    'edge_count': entry['edges'],
    'calibration': {'scale': 1.31, 'shift': -0.04},
    'ablation': {'kind': 'mean', 'over': 'pretraining', 'tokens': 65536},
    'formula': {
      'task_loss': 'two-way cross-entropy at the last token',
      'activation': 'value in the circuit',
    },
    'metrics': {
      **{k: v for k, v in entry.items() if 'loss' in k},
      'full_loss': 0.0421,
      'full_loss_interval': [0.031, 0.055],
      'train_loss': 0.139,
    },
    'prune_config': {'steps': 300, 'k_coef': 1e-4, 'target_loss': 0.15},
    'history': {
      'step': list(range(0, 300, 5)),
      'task_loss': [0.7 * 0.97**i + 0.1 for i in range(60)],
      'nodes': [1500 - 24 * i for i in range(60)],
    },
    'examples': examples,
    'provenance': {
      'seed': 0,
      'params_hash': 'a1b2c3',
      'tokenizer_hash': 'b1946ac924',
      'code_version': '0.1.0',
    },
  }


def _examples(rng, task, nasty):
  examples = []
  for pair in range(6):
    for side, tokens in (('a', ' =| set|()'), ('b', ' =| ""')):
      pieces = (_PROGRAM + f'{task}|\n   | seen|{tokens}|\n   | seen').split(
        '|'
      )
      pieces = _heal_eot(pieces)
      if nasty and pair == 0:
        pieces[3:3] = NASTY
      examples.append(
        {
          'pieces': pieces,
          'answer': '.add' if side == 'a' else ' +=',
          'other_answer': ' +=' if side == 'a' else '.add',
          'probability': float(rng.uniform(0.4 if pair == 3 else 0.9, 1)),
          'raw_probability': 0.6123,
          'full_probability': 0.9876,
          'condition': 'assign' if pair % 2 else 'call',
          'side': side,
        }
      )
  return examples


def _heal_eot(pieces):
  """Joins '<', 'endoftext', '>', which the split at '|' took apart."""
  return [''.join(['<|', pieces[1], '|>']), *pieces[3:]]
