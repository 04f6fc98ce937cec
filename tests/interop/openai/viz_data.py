"""A viz_data.pt as documented of the released ones, from a circuit of ours.

Losses are computed here with plain numpy from the logits of masked runs, as the
sum over both prompts of a pair.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.models import GPT


def masked_logits(small, kept, tokens):
  """Logits at every position, removed nodes at their means."""
  edits = {}
  for site, width in small.circuit.sites.items():
    mask = np.isin(np.arange(width), kept[site])
    mean = np.asarray(small.means[site])
    edits[site] = lambda x, mask=mask, mean=mean: jnp.where(mask, x, mean)
  run = jax.jit(
    lambda params, tokens: GPT(small.circuit.config).apply(
      {'params': params}, tokens, edits=edits
    )
  )
  logits, seen = run(small.params, tokens)
  return np.asarray(logits, np.float64), seen


def summed_loss(logits, task, answers):
  """-(log p(target | A) + log p(alternative | B)), mean over pairs."""
  total = 0
  by_pair = logits.reshape(len(task.tokens), 2, *logits.shape[1:])
  for pair, last in enumerate(task.last):
    for side in (0, 1):
      row = by_pair[pair, side, last[side]]
      if answers[1] is None:
        p = np.exp(row - np.logaddexp.reduce(row))[answers[0]]
        total -= np.log(p if side == 0 else 1 - p)
      else:
        two = row[list(answers)]
        total -= two[side] - np.logaddexp.reduce(two)
  return float(total / len(task.tokens))


def make_viz_data(small, answers):
  """(content, stored sums) of the file, with nodes in descending order."""
  circuit, task = small.circuit, small.task
  tokens = task.tokens.reshape(-1, task.tokens.shape[2])
  everything = {s: np.arange(w) for s, w in circuit.sites.items()}
  full, _ = masked_logits(small, everything, tokens)
  pruned, seen = masked_logits(small, circuit.nodes, tokens)
  order = np.concatenate([np.arange(0, len(tokens), 2) + s for s in (0, 1)])
  sums = {
    'loss': summed_loss(full, task, answers),
    'interv_loss': summed_loss(pruned, task, answers),
  }
  rng = np.random.default_rng(0)
  nodes = {site: kept[::-1] for site, kept in circuit.nodes.items()}
  content = {
    'circuit_data': {
      **{site: kept.astype(np.int64) for site, kept in nodes.items()},
      'prune_config': {'k_coef': 1e-4},
    },
    'samples': {
      site: {
        int(channel): {0.5: [[(tokens[0].astype(np.int64), seen_row, 3)], []]}
        for channel in kept
        for seen_row in [np.asarray(seen[site][0, :, channel])]
      }
      for site, kept in nodes.items()
    },
    'importances': {
      **sums,
      'ch_interv_losses': {
        site: [float(x) for x in 2 * rng.random(len(kept))]
        for site, kept in nodes.items()
      },
      'layer_interv_losses': {'0.attn': 0.5, '0.mlp': 0.25},
      'pair_data': [
        [
          np.ones((len(nodes['0.attn.act_in']), len(nodes['0.attn.q'])), 'f4'),
          nodes['0.attn.act_in'].tolist(),
          nodes['0.attn.q'].tolist(),
          ('0.attn.act_in', '0.attn.q'),
        ]
      ],
      'pair_data_connections': [],
      'task_samples': (
        tokens[order].astype(np.int64),
        {
          site: {int(c): np.asarray(seen[site][..., c])[order] for c in kept}
          for site, kept in nodes.items()
        },
      ),
      'beeg_model_config': {'n_layer': 2, 'd_model': 16},
    },
    'all_loss': [(0, 1.5), (1, sums['interv_loss'])],
    'num_total_nodes': sum(circuit.sites.values()),
  }
  return content, sums


def without(content, *path):
  """The content without one entry, nothing else changed."""
  if len(path) == 1:
    return {k: v for k, v in content.items() if k != path[0]}
  return {**content, path[0]: without(content[path[0]], *path[1:])}


def with_entry(content, value, *path):
  """The content with another entry, nothing else changed."""
  if not path:
    return value
  return {
    **content,
    path[0]: with_entry(content.get(path[0], {}), value, *path[1:]),
  }
